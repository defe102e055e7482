"""Mistakes in a RayService: streams cut, the proxy missing, plain HTTP outside."""

from typing import Any

from committed import document
from seeds import CLUSTER, SERVICE, Seed, serve, service

WORKERS = "spec/rayClusterConfig/workerGroupSpecs"
POD = f"{WORKERS}/0/template/spec"
HEAD_POD = "spec/rayClusterConfig/headGroupSpec/template/spec"
HOOK = f"{POD}/containers/0/lifecycle/preStop"
BUDGET = "PodDisruptionBudget/asclepius-model-serving"


def _variable(name: str) -> str:
    """The place of a variable of the workers."""
    container = document(SERVICE, "RayService")["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]
    variables = container["template"]["spec"]["containers"][0]["env"]
    (place,) = [place for place, variable in enumerate(variables) if variable["name"] == name]
    return f"{POD}/containers/0/env/{place}"


def _beside(rule: str, kind: str, spec: dict[str, Any], found_at: str) -> Seed:
    """A document of its own, in the place of a budget."""
    return Seed(rule, CLUSTER, "PodDisruptionBudget", "spec", spec, found_at, also=(("kind", kind),))


_BACKEND = {"http": {"paths": [{"backend": {"service": {"port": {"number": 8000}}}}]}}
_NAMED = {"service": {"name": "asclepius-model-serve-svc", "port": {"name": "serve"}}}
SERVICE_SEEDS = [
    service("service-outlives-streams", "spec/rayClusterDeletionDelaySeconds", 60),
    service("service-outlives-streams", HOOK, ...),
    service(
        "service-outlives-streams",
        f"{HOOK}/exec/command",
        ["asclepius", "drain-watch", "--now", "--grace-seconds", "60"],
        HOOK,
    ),
    service("service-outlives-streams", f"{POD}/terminationGracePeriodSeconds", 200),
    service("service-head-idle", "spec/excludeHeadPodFromServeSvc", ...),
    serve("service-proxy", "EveryNode", "HeadOnly", "/proxy_location"),
    serve("service-proxy", "0.0.0.0", "127.0.0.1", "/http_options/host"),
    serve("service-proxy", "port: 8000", "port: 8001", "/http_options/port"),
    service(
        "service-haproxy",
        f"{_variable('RAY_SERVE_ENABLE_HA_PROXY')}/value",
        "0",
        f"{POD}/containers/0/env",
    ),
    service("service-haproxy", f"{HEAD_POD}/containers/0/env", [], f"{HEAD_POD}/containers/0/env"),
    service("service-haproxy", f"{POD}/initContainers/0/command", ["true"], f"{POD}/initContainers"),
    service(
        "service-haproxy",
        f"{_variable('RAY_SERVE_HAPROXY_BINARY_PATH')}/value",
        "/usr/sbin/haproxy",
        f"{POD}/initContainers",
    ),
    Seed(
        "service-replica-fits",
        SERVICE,
        "RayService",
        "spec/serveConfigV2",
        document(SERVICE, "RayService")["spec"]["serveConfigV2"].replace(
            "use_gpu: true", "use_gpu: true\n        engine: vllm\n        tensor_parallel: 2"
        ),
        WORKERS,
    ),
    serve(
        "service-audit-kept",
        "use_gpu: true",
        "use_gpu: true\n        audit: /data/audit",
        "/applications/0/args/serving/audit",
    ),
    service(
        "service-behind-tls",
        "spec/serveService",
        {"spec": {"type": "LoadBalancer"}},
        "spec/serveService/spec/type",
    ),
    _beside("service-behind-tls", "Service", {"type": "NodePort", "ports": [{"port": 8000}]}, "spec/ports/0"),
    _beside(
        "service-behind-tls",
        "Service",
        {"type": "NodePort", "ports": [{"port": 80, "targetPort": "serve"}]},
        "spec/ports/0",
    ),
    _beside("service-behind-tls", "Ingress", {"rules": [_BACKEND]}, "spec/tls"),
    _beside("service-behind-tls", "Ingress", {"defaultBackend": _NAMED}, "spec/tls"),
    serve(
        "service-stays-awake",
        "use_gpu: true",
        "use_gpu: true\n        replicas: [0, 2]",
        "/applications/0/args/serving/replicas",
    ),
    Seed(
        "service-budget",
        SERVICE,
        BUDGET,
        "spec/selector/matchLabels",
        {"app.kubernetes.io/name": "other"},
        f"{WORKERS}/0/template/metadata/labels",
    ),
    Seed("budget-counts", SERVICE, BUDGET, "spec/maxUnavailable", 1),
    Seed("budget-counts", SERVICE, BUDGET, "spec/minAvailable", "50%"),
]
