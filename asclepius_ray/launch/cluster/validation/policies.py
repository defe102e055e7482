"""NetworkPolicies as Kubernetes reads them: whom they select, who comes in, where one gets out. Pure."""

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from asclepius_ray.launch.cluster.network_policies import DNS_PORT, NAMESPACE_LABEL, SERVERS_OF_KEYS
from asclepius_ray.launch.cluster.validation.manifests import Document, Group
from asclepius_ray.launch.cluster.validation.reading import list_at, number_at, table_at, text_at, value_at
from asclepius_ray.launch.cluster.yaml_text import Json

Side = Literal["ingress", "egress"]
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
PEERS = {"ingress": "from", "egress": "to"}
IDENTITY_PORTS = (80, 987, 988)
"""Where a cloud's servers of keys answer: of all clouds, and GKE's."""
_IDENTITY_NETWORKS = {
    network.version: network for network in map(ipaddress.ip_network, SERVERS_OF_KEYS.values())
}
_LONGEST_OF_EVERYBODY = {4: 7, 6: 15}
"""Two halves of the internet are as open as all of it; nobody's own network has so short a prefix."""


@dataclass(frozen=True)
class PolicyRule:
    """One entry of a policy's `ingress` or `egress`."""

    path: str
    peers: list[Any]
    """None at all = everybody."""
    ports: list[Any]
    """None at all = every port."""

    @property
    def is_for_everybody(self) -> bool:
        """Whether it is open to every address, or to every pod of the cluster or of the namespace."""
        return not self.peers or any(_is_everybody(peer) for peer in self.peers)

    @property
    def names_a_whole_namespace(self) -> bool:
        """Whether it is open to every pod of a namespace, whatever its labels."""
        return any(
            value_at(peer, "namespaceSelector") is not None and _is_of_all(value_at(peer, "podSelector"))
            for peer in self.peers
        )

    @property
    def named_networks(self) -> list[_Network]:
        """The ranges of addresses that it names, by number."""
        return [found for peer in self.peers if (found := _network(text_at(peer, "ipBlock", "cidr")))]

    @property
    def leads_to_the_clouds_keys(self) -> bool:
        """Whether it lets pods out to the servers where a node's rights in the cloud are given away."""
        if not any(map(self.has_port, IDENTITY_PORTS)):
            return False
        return not self.peers or any(map(_leads_to_keys, self.peers))

    def has_port(self, port: int) -> bool:
        """Whether it opens a TCP port, or, at 53, the UDP one where names are asked for."""
        return not self.ports or any(_covers(named, port) for named in self.ports)

    def opens_only(self, port: int) -> bool:
        return bool(self.ports) and all(
            value_at(named, "port") == port and value_at(named, "endPort") is None for named in self.ports
        )

    def is_for_own_pods_alone(self, groups: Iterable[Group]) -> bool:
        """Whether it names nobody but pods of these groups."""
        labels = [group.pod_labels for group in groups]
        return bool(self.peers) and all(_is_one_of(peer, labels) for peer in self.peers)

    def admits(self, labels: Json, elsewhere: bool) -> bool:
        """Whether a pod with these labels is named: `elsewhere`, one of another namespace."""
        return not self.peers or any(_names(peer, labels, elsewhere) for peer in self.peers)


def policies_for(group: Group, documents: Iterable[Document], side: Side) -> list[Document]:
    """The policies that close this side of a group's pods."""
    return [
        document
        for document in documents
        if document.kind == "NetworkPolicy" and _closes(document, side) and selects(document, group)
    ]


def selects(policy: Document, group: Group) -> bool:
    """Whether a policy is for a group's pods."""
    return matches(value_at(policy.value, "spec", "podSelector"), group.pod_labels)


def rules_of(policies: Iterable[Document], side: Side) -> Iterator[PolicyRule]:
    """All that the policies open on this side."""
    for policy in policies:
        for place, rule in enumerate(list_at(policy.value, "spec", side)):
            peers, ports = list_at(rule, PEERS[side]), list_at(rule, "ports")
            yield PolicyRule(f"spec.{side}[{place}].{PEERS[side]}", peers, ports)


def matches(selector: Any, labels: Json) -> bool:
    """Whether a label selector selects a pod; one that is not there selects none, an empty one all."""
    if not isinstance(selector, dict):
        return False
    wanted = table_at(selector, "matchLabels")
    return wanted.items() <= labels.items() and all(
        _holds(expression, labels) for expression in list_at(selector, "matchExpressions")
    )


def _holds(expression: Any, labels: Json) -> bool:
    key, values = text_at(expression, "key"), list_at(expression, "values")
    match text_at(expression, "operator"):
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
    return False


def _closes(policy: Document, side: Side) -> bool:
    spec = table_at(policy.value, "spec")
    types: Sequence[Any] = list_at(spec, "policyTypes")
    if not types:
        types = ["Ingress", *(["Egress"] if "egress" in spec else [])]
    return side.capitalize() in types


def _is_everybody(peer: Any) -> bool:
    if cidr := text_at(peer, "ipBlock", "cidr"):
        return is_any_address(cidr)
    pods, namespaces = value_at(peer, "podSelector"), value_at(peer, "namespaceSelector")
    return _is_of_all(pods) and _is_of_all(namespaces)


def _is_of_all(selector: Any) -> bool:
    """Whether a selector leaves nobody out, or only those that it names."""
    if selector is None:
        return True
    return not table_at(selector, "matchLabels") and all(
        text_at(expression, "operator") in ("NotIn", "DoesNotExist")
        # Every namespace has this label.
        or (text_at(expression, "operator"), text_at(expression, "key")) == ("Exists", NAMESPACE_LABEL)
        for expression in list_at(selector, "matchExpressions")
    )


def _is_one_of(peer: Any, labels: Sequence[Json]) -> bool:
    pods = value_at(peer, "podSelector")
    is_here = value_at(peer, "namespaceSelector") is None and value_at(peer, "ipBlock") is None
    return is_here and not _is_of_all(pods) and any(matches(pods, found) for found in labels)


def is_any_address(cidr: str) -> bool:
    """Whether a range of addresses is the whole internet, or so large a part of it."""
    found = _network(cidr)
    return found is not None and found.prefixlen <= _LONGEST_OF_EVERYBODY[found.version]


def _leads_to_keys(peer: Any) -> bool:
    cidr = text_at(peer, "ipBlock", "cidr")
    found = _network(cidr)
    if found is None or not is_any_address(cidr):
        return False
    servers = _IDENTITY_NETWORKS[found.version]
    shut = [one for name in list_at(peer, "ipBlock", "except") if (one := _network(str(name)))]
    return found.overlaps(servers) and not any(_holds_all(one, servers) for one in shut)


def _holds_all(network: _Network, other: _Network) -> bool:
    is_comparable = network.version == other.version
    return is_comparable and network.prefixlen <= other.prefixlen and network.overlaps(other)


def _network(cidr: str) -> _Network | None:
    try:
        return ipaddress.ip_network(cidr, strict=False)
    except ValueError:
        return None


def _covers(named: Any, port: int) -> bool:
    first = value_at(named, "port")
    if (text_at(named, "protocol") or "TCP") != ("UDP" if port == DNS_PORT else "TCP"):
        return False
    return first is None or number_at(named, "port") <= port <= number_at(
        named, "endPort", default=number_at(named, "port")
    )


def _names(peer: Any, labels: Json, elsewhere: bool) -> bool:
    if value_at(peer, "ipBlock") is not None:
        found = _network(text_at(peer, "ipBlock", "cidr"))
        # Half of the internet may be the half without the pods.
        return found is not None and found.prefixlen == 0
    is_elsewhere = value_at(peer, "namespaceSelector") is not None
    if elsewhere != is_elsewhere:
        return False
    pods = value_at(peer, "podSelector")
    return pods is None or matches(pods, labels)
