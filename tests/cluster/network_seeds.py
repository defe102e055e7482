"""Mistakes in NetworkPolicies: ports left open, and work that is cut off."""

from typing import Any

from committed import document
from seeds import CLUSTER, ENTRYPOINT, JOB, JOB_HEAD, JOB_WORKER, SERVICE, Seed

from asclepius_ray.launch.cluster.network_policies import NAMESPACE_LABEL

ALL_PODS, HEAD = "NetworkPolicy/asclepius-pipeline", "NetworkPolicy/asclepius-pipeline-head"
SERVING = "NetworkPolicy/asclepius-model-serving"
HEAD_LABELS, WORKER_LABELS = (f"{group}/template/metadata/labels" for group in (JOB_HEAD, JOB_WORKER))
SERVING_LABELS = "spec/rayClusterConfig/workerGroupSpecs/0/template/metadata/labels"


def _cut(rule: str, policy: str, path: str, value: Any, resource: str, labels: str) -> Seed:
    """A policy that is wrong by what it does to the pods of a resource, where it is found."""
    file = SERVICE if resource == "RayService" else JOB
    return Seed(rule, file, policy, path, value, labels)


def _opened(file: str, policy: str, path: str, value: Any, found_at: str = "") -> Seed:
    return Seed("network-open-to-all", file, policy, path, value, found_at)


def _let_out(path: str, value: Any, found_at: str = "") -> Seed:
    return Seed("network-egress", JOB, ALL_PODS, path, value, found_at)


def _moved(file: str, kind: str, namespace: str) -> Seed:
    return Seed("one-namespace", file, kind, _NAMESPACE, namespace)


def _selecting(key: str, operator: str) -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": operator}]}


_CLAIM, _NAMESPACE = "PersistentVolumeClaim", "metadata/namespace"
_FROM = "spec/ingress/0/from"
_HTTP = {"ports": [{"port": 80}]}
_OWN_PODS = document(JOB, ALL_PODS)["spec"]["egress"][0]["to"]
_ALL = [{"port": 1, "endPort": 65535}]
_OPERATORS = [{"namespaceSelector": {"matchLabels": {NAMESPACE_LABEL: "kuberay-operator"}}}]
NETWORK_SEEDS = [
    _cut(
        "network-closed", ALL_PODS, "spec/podSelector", {"matchLabels": {"a": "b"}}, "RayJob", WORKER_LABELS
    ),
    _cut("network-closed", ALL_PODS, "spec/policyTypes", ["Egress"], "RayJob", WORKER_LABELS),
    _cut("network-closed", ALL_PODS, "spec/policyTypes", ["Ingress"], "RayJob", WORKER_LABELS),
    _cut("network-closed", ALL_PODS, "kind", "Policy", "RayJob", WORKER_LABELS),
    _opened(JOB, HEAD, _FROM, ...),
    _opened(JOB, HEAD, _FROM, []),
    _opened(JOB, HEAD, _FROM, [{"ipBlock": {"cidr": "0.0.0.0/0"}}]),
    _opened(JOB, HEAD, _FROM, [{"ipBlock": {"cidr": "::/0"}}]),
    _opened(JOB, HEAD, _FROM, [{"ipBlock": {"cidr": "0.0.0.0/1"}}, {"ipBlock": {"cidr": "128.0.0.0/1"}}]),
    _opened(JOB, HEAD, _FROM, [{"ipBlock": {"cidr": "2000::/3"}}]),
    _opened(JOB, HEAD, _FROM, [{"namespaceSelector": {}}]),
    _opened(JOB, HEAD, _FROM, [{"podSelector": {}}]),
    _opened(JOB, HEAD, _FROM, [{"podSelector": _selecting("app", "DoesNotExist")}]),
    _opened(JOB, HEAD, _FROM, [{"namespaceSelector": _selecting(NAMESPACE_LABEL, "Exists")}]),
    _opened(JOB, HEAD, _FROM, _OPERATORS),
    _opened(JOB, HEAD, "spec/ingress/0", {"from": _OPERATORS, "ports": [{"port": 6379}]}, _FROM),
    _opened(JOB, HEAD, "spec/ingress/0", {"from": _OPERATORS}, _FROM),
    _opened(JOB, HEAD, "spec/ingress/0", {"from": _OPERATORS, "ports": _ALL}, _FROM),
    _opened(SERVICE, SERVING, "spec/ingress/0/ports", ..., _FROM),
    _opened(SERVICE, SERVING, "spec/ingress/0/ports/0/endPort", 9000, _FROM),
    _opened(CLUSTER, "NetworkPolicy/asclepius", "spec/ingress/2", {}, "spec/ingress/2/from"),
    _cut("network-own-pods", ALL_PODS, "spec/ingress/0/ports", [{"port": 6379}], "RayJob", WORKER_LABELS),
    _cut("network-own-pods", ALL_PODS, "spec/egress/0", ..., "RayJob", HEAD_LABELS),
    _cut("network-operator", HEAD, "spec/ingress", [], "RayJob", HEAD_LABELS),
    _cut("network-operator", HEAD, "spec/ingress/0/ports/0/port", 6379, "RayJob", HEAD_LABELS),
    _cut("network-clients", SERVING, "spec/ingress", [], "RayService", SERVING_LABELS),
    _cut("network-egress", ALL_PODS, "spec/egress/1", ..., "RayJob", WORKER_LABELS),
    _cut("network-egress", ALL_PODS, "spec/egress/1/ports/0/protocol", "TCP", "RayJob", WORKER_LABELS),
    _cut("network-egress", ALL_PODS, "spec/egress/2/ports/0/protocol", "UDP", "RayJob", WORKER_LABELS),
    _cut("network-egress", ALL_PODS, "spec/egress/2/to", _OWN_PODS, "RayJob", WORKER_LABELS),
    _cut("network-egress", ALL_PODS, "spec/egress/2", ..., "RayJob", WORKER_LABELS),
    _let_out("spec/egress", [{}], "spec/egress/0/to"),
    _let_out("spec/egress/3", _HTTP, "spec/egress/3/to"),
    *(
        _let_out("spec/egress/3", {"to": [{"ipBlock": block}], **ports}, "spec/egress/3/to")
        for block, ports in (
            ({"cidr": "0.0.0.0/0"}, {}),
            ({"cidr": "0.0.0.0/0", "except": ["169.254.169.254/32"]}, _HTTP),
            ({"cidr": "128.0.0.0/1"}, _HTTP),
            ({"cidr": "::/0"}, _HTTP),
        )
    ),
    _moved(JOB, ALL_PODS, "other"),
    _moved(JOB, "ConfigMap", "other"),
    _moved(JOB, "PodDisruptionBudget", "other"),
    _moved(CLUSTER, "NetworkPolicy/asclepius-head", "other"),
    Seed("one-namespace", "storage.yaml", _CLAIM, _NAMESPACE, "other", within=JOB),
    Seed(
        "network-egress",
        JOB,
        "RayJob",
        "spec/entrypoint",
        f"{ENTRYPOINT} --set teacher.base_url=http://teacher.models:9000/v1",
        WORKER_LABELS,
    ),
    Seed(
        "network-egress",
        JOB,
        "RayJob",
        "spec/entrypoint",
        ENTRYPOINT.replace("root=/data/llama3-8b", "'root=s3://runs/a?endpoint_override=minio:9001'"),
        WORKER_LABELS,
    ),
]
