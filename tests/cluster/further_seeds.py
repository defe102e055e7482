"""Further mistakes, for rules that can be broken in several ways."""

from typing import Any

from seeds import (
    CLUSTER,
    ENTRYPOINT,
    HEAD_POD,
    JOB,
    JOB_HEAD,
    JOB_SPEC,
    JOB_WORKER,
    SERVICE,
    TYPES,
    WORKER_POD,
    Seed,
    aws,
    cluster,
    job,
    serve,
)

WITHOUT_AUTOSCALER = ("spec/enableInTreeAutoscaling", False)
INCREMENTAL = {
    "gatewayClassName": "istio",
    "stepSizePercent": 10,
    "maxSurgePercent": 50,
    "intervalSeconds": 10,
}


def _incremental(option: str, value: Any) -> Seed:
    return Seed(
        "operator-incremental-upgrade",
        SERVICE,
        "RayService",
        "spec/upgradeStrategy",
        {
            "type": "NewClusterWithIncrementalUpgrade",
            "clusterUpgradeOptions": {**INCREMENTAL, option: value},
        },
        f"spec/upgradeStrategy/clusterUpgradeOptions/{option}",
    )


def _field(kind: str, path: str, value: Any, found_at: str = "", file: str = JOB) -> Seed:
    return Seed("kubernetes-schema", file, kind, path, value, found_at)


_PATHS = {"rules": [{"http": {"paths": [{"backend": {"service": {"name": "model"}}}]}}]}
KUBERNETES_SEEDS = [
    _field("PersistentVolumeClaim", "spec/storageClassNam", "fast", file="storage.yaml"),
    _field("PersistentVolumeClaim", "spec/resources", ..., file="storage.yaml"),
    _field("NetworkPolicy/asclepius-pipeline", "spec/policyTyps", ["Ingress"]),
    _field("NetworkPolicy/asclepius-pipeline", "spec/policyTypes/0", "ingress"),
    _field("NetworkPolicy/asclepius-pipeline", "spec/egress/0/from", []),
    _field("PodDisruptionBudget", "spec/minAvailabl", 1),
    _field("ConfigMap", "data/number", 1),
    *(
        Seed("kubernetes-schema", CLUSTER, "PodDisruptionBudget", "spec", spec, found_at, (("kind", kind),))
        for kind, spec, found_at in [
            ("Service", {"ports": [{"ports": 80}]}, "spec/ports/0/ports"),
            ("Ingress", _PATHS, "spec/rules/0/http/paths/0/pathType"),
        ]
    ),
]
KUEUE, YUNIKORN = "queues/kueue.yaml", "queues/yunikorn.yaml"


def _kueue(path: str, value: Any, *also: tuple[str, Any]) -> Seed:
    return Seed("queue-kueue", KUEUE, "RayJob", path, value, also=also)


FURTHER_SEEDS = [
    *KUBERNETES_SEEDS,
    _kueue("spec/shutdownAfterJobFinishes", False),
    _kueue("spec/clusterSelector", {"ray.io/cluster": "mine"}),
    _kueue(f"{JOB_SPEC}/enableInTreeAutoscaling", True),
    _kueue(f"{JOB_SPEC}/workerGroupSpecs", [{"groupName": str(number)} for number in range(8)]),
    Seed("queue-yunikorn-gang", YUNIKORN, "RayJob", f"{JOB_WORKER}/minReplicas", 0),
    job("run-file-seen", "spec/entrypoint", ENTRYPOINT.replace("/etc/asclepius", "https://host")),
    Seed(
        "operator-replica-limits",
        CLUSTER,
        "RayCluster",
        "spec/workerGroupSpecs/0/maxReplicas",
        ...,
        also=(WITHOUT_AUTOSCALER,),
    ),
    Seed(
        "operator-autoscaler-variable",
        CLUSTER,
        "RayCluster",
        "spec/headGroupSpec/template/spec/containers/0/env/0",
        {"name": "RAY_enable_autoscaler_v2", "value": "1"},
        "spec/headGroupSpec/template/spec/containers/0/env",
        also=(WITHOUT_AUTOSCALER,),
    ),
    Seed(
        "operator-kubernetes-token",
        CLUSTER,
        "RayCluster",
        "spec/authOptions/enableK8sTokenAuth",
        True,
        also=(("spec/rayVersion", "2.53.0"),),
    ),
    job("operator-one-cluster", JOB_SPEC, ..., "spec"),
    job("operator-one-cluster", "spec/clusterSelector", {"other": "mine"}),
    job("operator-time-to-live", "spec/ttlSecondsAfterFinished", -1),
    job("operator-sidecar", "spec/clusterSelector", {"ray.io/cluster": "mine"}),
    job("operator-backoff", "spec/clusterSelector", {"ray.io/cluster": "mine"}, "spec/backoffLimit"),
    Seed(
        "operator-incremental-upgrade",
        SERVICE,
        "RayService",
        "spec/upgradeStrategy/type",
        "NewClusterWithIncrementalUpgrade",
        also=(
            ("spec/rayClusterConfig/enableInTreeAutoscaling", False),
            ("spec/upgradeStrategy/clusterUpgradeOptions", INCREMENTAL),
        ),
    ),
    _incremental("gatewayClassName", ""),
    _incremental("intervalSeconds", 0),
    cluster(
        "no-public-dashboard",
        "spec/headGroupSpec/headService",
        {"spec": {"type": "NodePort"}},
        "spec/headGroupSpec/headService/spec/type",
    ),
    Seed(
        "no-public-service",
        CLUSTER,
        "PodDisruptionBudget",
        "spec",
        {"rules": [{"http": {"paths": [{"backend": {"service": {"port": {"number": 8265}}}}]}}]},
        "spec/rules/0/http/paths/0/backend",
        also=(("kind", "Ingress"),),
    ),
    Seed(
        "no-public-service",
        CLUSTER,
        "PodDisruptionBudget",
        "spec",
        {"type": "NodePort", "ports": [{"port": 80, "targetPort": 6379}]},
        "spec/ports/0",
        also=(("kind", "Service"),),
    ),
    Seed(
        "no-public-service",
        CLUSTER,
        "PodDisruptionBudget",
        "spec",
        {"type": "LoadBalancer", "selector": {"ray.io/node-type": "head"}, "ports": [{"port": 80}]},
        "spec/selector",
        also=(("kind", "Service"),),
    ),
    Seed(
        "no-public-service",
        CLUSTER,
        "PodDisruptionBudget",
        "spec",
        {"defaultBackend": {"service": {"name": "asclepius-head-svc", "port": {"name": "dashboard"}}}},
        "spec/defaultBackend",
        also=(("kind", "Ingress"),),
    ),
    Seed(
        "no-public-service",
        CLUSTER,
        "PodDisruptionBudget",
        "spec",
        {
            "type": "NodePort",
            "selector": {"ray.io/node-type": "head"},
            "ports": [{"port": 80, "targetPort": "dashboard"}],
        },
        "spec/ports/0",
        also=(("kind", "Service"),),
    ),
    Seed(
        "head-budget",
        JOB,
        "PodDisruptionBudget",
        "spec/minAvailable",
        0,
        f"{JOB_HEAD}/template/metadata/labels",
    ),
    job(
        "volumes-mounted",
        f"{WORKER_POD}/volumes/2",
        {"name": "scratch", "emptyDir": {}},
        f"{WORKER_POD}/volumes",
    ),
    cluster(
        "volumes-mounted",
        "spec/headGroupSpec/template/spec/volumes/1",
        ...,
        "spec/autoscalerOptions/volumeMounts",
    ),
    cluster(
        "no-rights",
        "spec/autoscalerOptions/securityContext",
        ...,
        "spec/autoscalerOptions/securityContext/allowPrivilegeEscalation",
    ),
    job("head-stays", f"{HEAD_POD}/tolerations", [{"key": "spot", "operator": "Exists"}]),
    serve("serve-config", "name: llama3-8b", "nam: llama3-8b", "/applications/0/args/nam"),
    aws("launcher-token", "worker_start_ray_commands", ["ray stop"]),
    aws("launcher-worker-limit", f"{TYPES}/training/min_workers", 2),
]
