"""Mistakes in the TLS between nodes, made in a cluster that has none."""

from committed import document
from seeds import CLUSTER, Seed

from asclepius_ray.launch.cluster.node_certificates import FILES

ON = {"name": "RAY_USE_TLS", "value": "1"}
NAMED = [ON, *({"name": name, "value": file} for name, file in FILES.items())]
HEAD = "spec/headGroupSpec/template/spec"
GROUPS = [
    HEAD,
    *(
        f"spec/workerGroupSpecs/{place}/template/spec"
        for place, _ in enumerate(document(CLUSTER, "RayCluster")["spec"]["workerGroupSpecs"])
    ),
]


def _tls(
    rule: str, pods: list[str], env: list[dict[str, str]], found_at: str, *also: tuple[str, object]
) -> Seed:
    """The variables instead of all others in these pods."""
    first, *others = [(f"{pod}/containers/0/env", env) for pod in pods]
    return Seed(rule, CLUSTER, "RayCluster", *first, found_at, also=(*others, *also))


TLS_SEEDS = [
    _tls("tls-on-all-nodes", [HEAD], NAMED, f"{GROUPS[1]}/containers/0/env"),
    _tls("tls-on-all-nodes", GROUPS, NAMED, "spec/autoscalerOptions/env"),
    _tls("tls-certificate", GROUPS, [ON], f"{GROUPS[1]}/containers/0/env"),
    _tls("tls-certificate", GROUPS, NAMED, f"{HEAD}/initContainers"),
    _tls(
        "tls-authority-key",
        [HEAD],
        NAMED,
        f"{HEAD}/containers/0/volumeMounts/1",
        (f"{HEAD}/volumes/2", {"name": "authority", "secret": {"secretName": "authority"}}),
        (f"{HEAD}/containers/0/volumeMounts/1", {"name": "authority", "mountPath": "/run/ray-tls"}),
        (f"{HEAD}/initContainers", [{"name": "sign", "volumeMounts": [{"name": "authority"}]}]),
    ),
]
