"""Kubernetes' own kinds that we render: their version, and no field that its API does not know. Pure."""

from collections.abc import Iterator, Sequence

from asclepius_ray.launch.cluster.validation.findings import Trouble
from asclepius_ray.launch.cluster.validation.manifests import CLUSTER_KEYS, LAUNCHER, Document, resources_in
from asclepius_ray.launch.cluster.validation.reading import list_at, text_at
from asclepius_ray.launch.cluster.validation.schemas import schema_troubles
from asclepius_ray.launch.cluster.yaml_text import Json

KUBERAYS_GROUP = "ray.io/"
KUBERAYS_OTHER_KINDS = ("RayCronJob",)
API_VERSIONS = dict.fromkeys(CLUSTER_KEYS, f"{KUBERAYS_GROUP}v1") | {
    "ConfigMap": "v1",
    "Ingress": "networking.k8s.io/v1",
    "NetworkPolicy": "networking.k8s.io/v1",
    "PersistentVolumeClaim": "v1",
    "PodDisruptionBudget": "policy/v1",
    "Secret": "v1",
    "Service": "v1",
}
"""The version of each kind that the rules are written for; the kinds that are not here have no rules."""
_TEXT, _NUMBER, _FLAG = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
_ANYTHING: Json = {}
_NUMBER_OR_TEXT = {"type": ["integer", "string"]}
_AMOUNTS = {"type": "object", "additionalProperties": {"type": ["number", "string"]}}
_TEXTS = {"type": "object", "additionalProperties": _TEXT}


def _one_of(*values: str) -> Json:
    return {"enum": list(values)}


def _list(of: Json) -> Json:
    return {"type": "array", "items": of}


def _table(needed: Sequence[str] = (), /, **fields: Json) -> Json:
    """A mapping that has no other fields than these."""
    return {
        "type": "object",
        "properties": fields,
        "required": list(needed),
        "additionalProperties": False,
    }


_PROTOCOL = _one_of("TCP", "UDP", "SCTP")
_SELECTOR = _table(
    matchLabels=_TEXTS,
    matchExpressions=_list(_table(["key", "operator"], key=_TEXT, operator=_TEXT, values=_list(_TEXT))),
)
_PEERS = _list(
    _table(
        podSelector=_SELECTOR,
        namespaceSelector=_SELECTOR,
        ipBlock=_table(["cidr"], **{"cidr": _TEXT, "except": _list(_TEXT)}),
    )
)
_POLICY_PORTS = _list(_table(port=_NUMBER_OR_TEXT, endPort=_NUMBER, protocol=_PROTOCOL))
_BACKEND = _table(
    service=_table(["name"], name=_TEXT, port=_table(name=_TEXT, number=_NUMBER)),
    resource=_table(["kind", "name"], apiGroup=_TEXT, kind=_TEXT, name=_TEXT),
)
_PATHS = _list(
    _table(
        ["pathType", "backend"],
        path=_TEXT,
        pathType=_one_of("Exact", "Prefix", "ImplementationSpecific"),
        backend=_BACKEND,
    )
)
_SPECS: dict[str, Json] = {
    "Ingress": _table(
        ingressClassName=_TEXT,
        defaultBackend=_BACKEND,
        tls=_list(_table(hosts=_list(_TEXT), secretName=_TEXT)),
        rules=_list(_table(host=_TEXT, http=_table(["paths"], paths=_PATHS))),
    ),
    "NetworkPolicy": _table(
        podSelector=_SELECTOR,
        policyTypes=_list(_one_of("Ingress", "Egress")),
        ingress=_list(_table(**{"from": _PEERS, "ports": _POLICY_PORTS})),
        egress=_list(_table(to=_PEERS, ports=_POLICY_PORTS)),
    ),
    "PersistentVolumeClaim": _table(
        ["accessModes", "resources"],
        accessModes=_list(_one_of("ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod")),
        storageClassName=_TEXT,
        resources=_table(["requests"], requests=_AMOUNTS, limits=_AMOUNTS),
        selector=_SELECTOR,
        volumeName=_TEXT,
        volumeMode=_one_of("Filesystem", "Block"),
        volumeAttributesClassName=_TEXT,
        dataSource=_ANYTHING,
        dataSourceRef=_ANYTHING,
    ),
    "PodDisruptionBudget": _table(
        minAvailable=_NUMBER_OR_TEXT,
        maxUnavailable=_NUMBER_OR_TEXT,
        selector=_SELECTOR,
        unhealthyPodEvictionPolicy=_one_of("IfHealthyBudget", "AlwaysAllow"),
    ),
    "Service": _table(
        type=_one_of("ClusterIP", "NodePort", "LoadBalancer", "ExternalName"),
        selector=_TEXTS,
        ports=_list(
            _table(
                ["port"],
                name=_TEXT,
                port=_NUMBER,
                targetPort=_NUMBER_OR_TEXT,
                nodePort=_NUMBER,
                protocol=_PROTOCOL,
                appProtocol=_TEXT,
            )
        ),
        clusterIP=_TEXT,
        clusterIPs=_list(_TEXT),
        externalIPs=_list(_TEXT),
        externalName=_TEXT,
        externalTrafficPolicy=_TEXT,
        internalTrafficPolicy=_TEXT,
        trafficDistribution=_TEXT,
        ipFamilies=_list(_TEXT),
        ipFamilyPolicy=_TEXT,
        loadBalancerIP=_TEXT,
        loadBalancerClass=_TEXT,
        loadBalancerSourceRanges=_list(_TEXT),
        allocateLoadBalancerNodePorts=_FLAG,
        healthCheckNodePort=_NUMBER,
        publishNotReadyAddresses=_FLAG,
        sessionAffinity=_TEXT,
        sessionAffinityConfig=_ANYTHING,
    ),
}


def _document(kind: str) -> Json:
    """All of a document; of metadata Kubernetes itself takes care, and `status` is what it has written."""
    fields: dict[str, Json] = {"spec": _SPECS[kind]} if kind in _SPECS else {}
    if kind == "ConfigMap":
        fields = {"data": _TEXTS, "binaryData": _TEXTS, "immutable": _FLAG}
    return _table(
        ["metadata", *({"spec"} & fields.keys())],
        apiVersion=_TEXT,
        kind=_TEXT,
        metadata={"type": "object"},
        status=_ANYTHING,
        **fields,
    )


SCHEMAS = {kind: _document(kind) for kind in (*_SPECS, "ConfigMap")}


def known_document(document: Document) -> Iterator[Trouble]:
    """Whether it is a file of `ray up`, or of a kind and a version of it that the rules are written for."""
    kind, version = document.kind, text_at(document.value, "apiVersion")
    if kind == LAUNCHER:
        return
    if not kind or not version:
        yield Trouble("kind", "it is no file of ray up and has no kind and apiVersion", "write both")
    elif kind in API_VERSIONS and version != API_VERSIONS[kind]:
        said = f"a {kind} of {version!r} is not known"
        yield Trouble("apiVersion", said, f"set {API_VERSIONS[kind]}")
    elif version.startswith(KUBERAYS_GROUP) and kind not in (*API_VERSIONS, *KUBERAYS_OTHER_KINDS):
        kinds = ", ".join((*CLUSTER_KEYS, *KUBERAYS_OTHER_KINDS))
        yield Trouble("kind", f"KubeRay has no kind {kind!r}", f"use one of {kinds}")


def kubernetes_schema(document: Document) -> Iterator[Trouble]:
    """What does not fit a kind of Kubernetes' own, as strict as `kubectl --validate=strict`."""
    if document.kind in SCHEMAS:
        yield from schema_troubles(document.value, SCHEMAS[document.kind])


def without_rules(documents: Sequence[Document]) -> Iterator[str]:
    """Every document of a kind for which there are no rules."""
    for one in documents:
        if one.kind and one.kind != LAUNCHER and one.kind not in API_VERSIONS:
            yield f"{one.kind} {one.name} in {one.file}: there are no rules for its kind"


def claims_elsewhere(documents: Sequence[Document]) -> Iterator[str]:
    """Every claim that pods mount and no document here makes."""
    made = {(one.namespace, one.name) for one in documents if one.kind == "PersistentVolumeClaim"}
    for document in documents:
        mounted = [
            text_at(volume, "persistentVolumeClaim", "claimName")
            for resource in resources_in(document)
            for group in resource.groups
            for volume in list_at(group.pod, "volumes")
        ]
        for claim in dict.fromkeys(mounted):
            if claim and (document.namespace, claim) not in made:
                yield f"the claim {claim} that {document.file} mounts: name the file that holds it"
