"""What a resource's NetworkPolicies leave open, and what they cut off that its work needs. Pure."""

from collections.abc import Iterator, Sequence
from urllib.parse import parse_qs, urlsplit

from asclepius_ray.errors import ConfigError
from asclepius_ray.launch.cluster.kuberay import ports_asked
from asclepius_ray.launch.cluster.network_policies import (
    DASHBOARD_PORT,
    DNS_PORT,
    HTTPS_PORT,
    OPERATOR_LABELS,
)
from asclepius_ray.launch.cluster.serve_config import SERVE_PORT
from asclepius_ray.launch.cluster.validation.findings import Trouble
from asclepius_ray.launch.cluster.validation.manifests import Document, Group, RayResource, resources_in
from asclepius_ray.launch.cluster.validation.policies import PolicyRule, Side, policies_for, rules_of
from asclepius_ray.launch.cluster.validation.reading import text_at
from asclepius_ray.launch.cluster.validation.set_rules import SetRule
from asclepius_ray.launch.cluster.validation.started import find_run_text, parse_entrypoint
from asclepius_ray.run import parse_run

_RENDER = "render the resource anew, with its policies"


def _is_closed(document: Document, others: Sequence[Document]) -> Iterator[Trouble]:
    """Every pod is selected, for what comes in and for what goes out."""
    said: dict[Side, str] = {
        "ingress": "every pod of the Kubernetes cluster reaches {}: no NetworkPolicy closes its ports",
        "egress": "{} reaches every address: no NetworkPolicy closes what goes out",
    }
    for resource in resources_in(document):
        for group in resource.groups:
            for side, words in said.items():
                if not policies_for(group, others, side):
                    advice = f"{_RENDER}, or name the file that holds them"
                    yield Trouble(_labels_path(group), words.format(group.name), advice)


def _opens_no_port_to_all(document: Document, others: Sequence[Document]) -> Iterator[Trouble]:
    if document.kind != "NetworkPolicy":
        return
    for rule in rules_of([document], "ingress"):
        if rule.is_for_everybody and not rule.opens_only(SERVE_PORT):
            said = "it lets everybody in to Ray's ports, the dashboard's among them, where jobs are started"
            yield Trouble(rule.path, said, f"name the pods that need it, or open port {SERVE_PORT} alone")


def _pods_reach_each_other(document: Document, others: Sequence[Document]) -> Iterator[Trouble]:
    sides: dict[Side, str] = {"ingress": "reach", "egress": "are reached by"}
    for resource in resources_in(document):
        for group in resource.groups:
            for side, verb in sides.items():
                policies = policies_for(group, others, side)
                open_to = [rule for rule in rules_of(policies, side) if not rule.ports]
                blind = [
                    other.name
                    for other in resource.groups
                    if not any(rule.admits(other.labels, elsewhere=False) for rule in open_to)
                ]
                if policies and blind:
                    said = f"no policy says that pods of {blind[0]} {verb} {group.name}, at any port of Ray's"
                    advice = "allow all ports among the pods with the resource's own labels"
                    yield Trouble(_labels_path(group), said, advice)


def _operator_reaches_the_head(document: Document, others: Sequence[Document]) -> Iterator[Trouble]:
    for resource in resources_in(document):
        if not resource.cluster or resource.kind == "RayCluster":
            continue
        policies = policies_for(resource.head, others, "ingress")
        if policies and not any(
            rule.has_port(DASHBOARD_PORT) and _admits_operator(rule) for rule in rules_of(policies, "ingress")
        ):
            said = (
                f"no policy lets KubeRay's operator in to port {DASHBOARD_PORT}, and the {resource.kind} "
                "would wait for ever"
            )
            advice = "name the operator's namespace in the profile's network.operator_namespaces"
            yield Trouble(_labels_path(resource.head), said, advice)


def _admits_operator(rule: PolicyRule) -> bool:
    return any(rule.admits(OPERATOR_LABELS, elsewhere) for elsewhere in (True, False))


def _clients_reach_the_model(document: Document, others: Sequence[Document]) -> Iterator[Trouble]:
    for resource in resources_in(document):
        for group in resource.workers if resource.kind == "RayService" else []:
            policies = policies_for(group, others, "ingress")
            named = [rule for rule in rules_of(policies, "ingress") if rule.ports]
            if policies and not any(rule.has_port(SERVE_PORT) for rule in named):
                said = f"no policy lets clients in to port {SERVE_PORT} of {group.name}"
                advice = "name who asks in the profile's network.serve_namespaces and serve_pods"
                yield Trouble(_labels_path(group), said, advice)


def _pods_reach_what_they_ask(document: Document, others: Sequence[Document]) -> Iterator[Trouble]:
    for resource in resources_in(document):
        wanted = {DNS_PORT: "names of hosts are asked for", **_asked_ports(resource, others)}
        for group in resource.groups:
            policies = policies_for(group, others, "egress")
            open_to = [rule for rule in rules_of(policies, "egress") if rule.ports]
            for port, purpose in wanted.items() if policies else []:
                if not any(rule.has_port(port) for rule in open_to):
                    said = f"no policy lets {group.name} out to port {port}, where {purpose}"
                    advice = "add it to the profile's network.ports and render anew"
                    yield Trouble(_labels_path(group), said, advice)


def _asked_ports(resource: RayResource, others: Sequence[Document]) -> dict[int, str]:
    """The ports that the run of a RayJob asks at, and what for."""
    text = find_run_text(resource, others) if resource.kind == "RayJob" else None
    entrypoint = parse_entrypoint(text_at(resource.spec, "entrypoint"))
    if text is None or entrypoint is None:
        return {}
    try:
        run = parse_run(text.text, text.where, list(entrypoint.overrides))
    except ConfigError:
        # Another rule says what is wrong with it.
        return {}
    store = parse_qs(urlsplit(run.root).query).get("endpoint_override", [""])[0].rpartition(":")[2]
    stored = {int(store): "the runs are kept"} if store.isdigit() else {}
    if not stored and "://" in run.root:
        stored = {HTTPS_PORT: "the runs are kept"}
    return stored | dict.fromkeys(ports_asked(run), "an endpoint of the run is")


def _labels_path(group: Group) -> str:
    return f"{group.path}.template.metadata.labels"


NETWORK_RULES: dict[str, SetRule] = {
    "network-closed": _is_closed,
    "network-open-to-all": _opens_no_port_to_all,
    "network-own-pods": _pods_reach_each_other,
    "network-operator": _operator_reaches_the_head,
    "network-clients": _clients_reach_the_model,
    "network-egress": _pods_reach_what_they_ask,
}
