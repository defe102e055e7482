"""`[network]` → the NetworkPolicies of one Ray resource: all that is not named here is closed. Pure.

Policies add up: the first one selects every pod of the resource, and with that nothing else comes in or goes
out; the others open what the head, and the pods that serve, need besides.
"""

from collections.abc import Collection, Sequence

from asclepius_ray.launch.cluster.network_sections import NetworkSection
from asclepius_ray.launch.cluster.pods import labels_of, labels_of_all
from asclepius_ray.launch.cluster.profile import Profile
from asclepius_ray.launch.cluster.serve_config import SERVE_PORT
from asclepius_ray.launch.cluster.yaml_text import Json

DASHBOARD_PORT, METRICS_PORT, HTTPS_PORT, DNS_PORT = 8265, 8080, 443, 53
OPERATOR_LABELS = {"app.kubernetes.io/component": "kuberay-operator"}
"""The one label that the operator's pods have however it was installed."""
NAMESPACE_LABEL = "kubernetes.io/metadata.name"
"""Kubernetes itself sets it: no pod can take another namespace's."""
SERVERS_OF_KEYS = {"0.0.0.0/0": "169.254.0.0/16", "::/0": "fd00:ec2::/32"}
"""Every address → where a cloud's servers of keys are among them; with IPv6 they are not link-local."""
_IDENTITY_SERVERS: dict[str, list[tuple[str, tuple[int, ...]]]] = {
    # GKE's, through which a pod gets the token of its own service account.
    "gs": [("169.254.169.252/32", (987, 988)), ("169.254.169.254/32", (80,))],
    # EKS's Pod Identity.
    "s3": [("169.254.170.23/32", (80,))],
}


def network_policies(
    profile: Profile, resource: str, endpoint_ports: Collection[int], serves: bool
) -> list[Json]:
    """The policies of a resource's pods; `endpoint_ports` are those of the endpoints that its run asks."""
    network, everyone = profile.network, [_pods(labels_of_all(resource))]
    ports = {HTTPS_PORT, *network.ports, *endpoint_ports, *_storage_port(profile)}
    incoming: list[Json] = [{"from": everyone}]
    if network.monitoring_namespaces:
        incoming.append(_rule("from", _of_namespaces(network.monitoring_namespaces), [METRICS_PORT]))
    outgoing: list[Json] = [
        {"to": everyone},
        _rule("to", [_pods_anywhere(), _addresses(SERVERS_OF_KEYS["0.0.0.0/0"])], [DNS_PORT], ("UDP", "TCP")),
        _rule("to", [_pods_anywhere(), *_outside(network)], sorted(ports)),
        *_identity_rules(profile),
    ]
    operator = _of_namespaces(network.operator_namespaces, OPERATOR_LABELS)
    api_server = [_addresses(cidr) for cidr in network.api_server] or _outside(network)
    policies = [
        _policy(resource, labels_of_all(resource), incoming, outgoing),
        _policy(
            f"{resource}-head",
            labels_of(resource, "head"),
            [_rule("from", operator, [DASHBOARD_PORT])],
            [_rule("to", api_server, network.api_server_ports)],
        ),
    ]
    if serves:
        askers = [_rule("from", _askers(network), [SERVE_PORT])]
        policies.append(_policy(f"{resource}-serving", labels_of(resource, "worker"), askers, None))
    return policies


def _policy(name: str, labels: Json, incoming: list[Json], outgoing: list[Json] | None) -> Json:
    sides = {"ingress": incoming} | ({} if outgoing is None else {"egress": outgoing})
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name},
        "spec": {
            "podSelector": {"matchLabels": labels},
            "policyTypes": [side.capitalize() for side in sides],
            **sides,
        },
    }


def _rule(side: str, peers: list[Json], ports: Sequence[int], protocols: Sequence[str] = ("TCP",)) -> Json:
    named = [{"protocol": protocol, "port": port} for port in ports for protocol in protocols]
    return {side: peers, "ports": named}


def _askers(network: NetworkSection) -> list[Json]:
    if network.serve_namespaces:
        return _of_namespaces(network.serve_namespaces, network.serve_pods)
    return [_pods(network.serve_pods)]


def _of_namespaces(namespaces: Sequence[str], labels: Json | None = None) -> list[Json]:
    """Pods with these labels, or all pods, of the namespaces."""
    pods = _pods(labels) if labels else {}
    return [{"namespaceSelector": {"matchLabels": {NAMESPACE_LABEL: name}}, **pods} for name in namespaces]


def _pods(labels: Json) -> Json:
    return {"podSelector": {"matchLabels": dict(labels)} if labels else {}}


def _pods_anywhere() -> Json:
    return {"namespaceSelector": {}}


def _addresses(cidr: str) -> Json:
    return {"ipBlock": {"cidr": cidr}}


def _outside(network: NetworkSection) -> list[Json]:
    if network.outside:
        return [_addresses(cidr) for cidr in network.outside]
    # What a pod may ask of a cloud's servers of keys is said apart.
    return [{"ipBlock": {"cidr": cidr, "except": [shut]}} for cidr, shut in SERVERS_OF_KEYS.items()]


def _storage_port(profile: Profile) -> list[int]:
    bucket = profile.storage.bucket
    if bucket is None or not bucket.endpoint:
        return []
    port = bucket.endpoint.rpartition(":")[2]
    return [int(port)] if port.isdigit() else [HTTPS_PORT if bucket.endpoint_scheme == "https" else 80]


def _identity_rules(profile: Profile) -> list[Json]:
    """Where the pods' service account opens the bucket: the server that gives its token."""
    if not (profile.cloud.role and profile.storage.bucket):
        return []
    servers = _IDENTITY_SERVERS[profile.storage.bucket.uri.partition("://")[0]]
    return [_rule("to", [_addresses(cidr)], ports) for cidr, ports in servers]
