"""What a resource's NetworkPolicies leave open, and what they cut off that its work needs. Pure."""

from collections.abc import Iterator, Sequence
from urllib.parse import parse_qs, urlsplit

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
from asclepius_ray.launch.cluster.validation.policies import (
    PolicyRule,
    Side,
    policies_for,
    rules_of,
    selects,
)
from asclepius_ray.launch.cluster.validation.set_rules import RAY_PORTS, SetRule
from asclepius_ray.launch.cluster.validation.started import Started
from asclepius_ray.launch.locations import STAGES_OF_JOB
from asclepius_ray.training.config import TINY

EGRESS = "network-egress"
API_PORTS = (443, 6443)
"""Where Kubernetes' API is, as a Service and by itself."""
HUB_ELSEWHERE = {"HF_HUB_OFFLINE", "HF_ENDPOINT"}
"""Variables by which models come from a node's disk or a mirror."""
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
    if not _is_of_a_resource(document, others):
        return
    for rule in rules_of([document], "ingress"):
        advice = f"name the pods that need it, or open port {SERVE_PORT} alone"
        if rule.is_for_everybody and not rule.opens_only(SERVE_PORT):
            said = "it lets everybody in to Ray's ports, the dashboard's among them, where jobs are started"
            yield Trouble(rule.path, said, advice)
        elif rule.names_a_whole_namespace and (opened := [port for port in RAY_PORTS if rule.has_port(port)]):
            said = (
                f"it lets every pod of a namespace in to port {opened[0]} ({RAY_PORTS[opened[0]]}), "
                "whatever runs there"
            )
            yield Trouble(rule.path, said, advice)


def _is_of_a_resource(document: Document, others: Sequence[Document]) -> bool:
    """Whether it is a policy for the pods of a resource here."""
    groups = [group for other in others for resource in resources_in(other) for group in resource.groups]
    return document.kind == "NetworkPolicy" and any(selects(document, group) for group in groups)


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
            of_others = _for_others(resource, policies, "ingress")
            if policies and not any(rule.has_port(SERVE_PORT) for rule in of_others):
                said = f"no policy lets clients in to port {SERVE_PORT} of {group.name}"
                advice = "name who asks in the profile's network.serve_namespaces and serve_pods"
                yield Trouble(_labels_path(group), said, advice)


def _goes_out(document: Document, others: Sequence[Document]) -> Iterator[Trouble]:
    yield from _pods_ask_for_names(document, others)
    for rule in rules_of([document], "egress") if _is_of_a_resource(document, others) else []:
        if rule.leads_to_the_clouds_keys:
            addresses = ", ".join(map(str, rule.named_networks)) or "every address"
            said = f"pods reach {addresses}, the cloud's servers of keys too: a job takes the node's rights"
            advice = "name what the work needs, except 169.254.0.0/16 and, with IPv6, fd00:ec2::/32"
            yield Trouble(rule.path, said, advice)


def _pods_ask_for_names(document: Document, others: Sequence[Document]) -> Iterator[Trouble]:
    for resource in resources_in(document):
        wanted = {DNS_PORT: "names of hosts are asked for"}
        yield from _shut_ports(resource, others, wanted)
        yield from _autoscaler_is_shut_in(resource, others)


def _autoscaler_is_shut_in(resource: RayResource, others: Sequence[Document]) -> Iterator[Trouble]:
    """No file says where the API is: what opens it is for every address, for one, or the head's own."""
    policies = policies_for(resource.head, others, "egress")
    if not (resource.autoscales and policies):
        return
    of_workers = [
        rule
        for group in resource.workers
        for rule in rules_of(policies_for(group, others, "egress"), "egress")
    ]
    for rule in rules_of(policies, "egress"):
        if any(map(rule.has_port, API_PORTS)) and _may_lead_to_the_api(rule, of_workers):
            return
    said = "no policy lets the head out to the Kubernetes API, which its autoscaler asks for nodes"
    yield Trouble(_labels_path(resource.head), said, "set the profile's network.api_server and render anew")


def _may_lead_to_the_api(rule: PolicyRule, of_workers: Sequence[PolicyRule]) -> bool:
    is_one = any(found.prefixlen in (0, found.max_prefixlen) for found in rule.named_networks)
    return not rule.peers or is_one or (bool(rule.named_networks) and rule not in of_workers)


def what_the_run_asks(started: Started, others: Sequence[Document]) -> Iterator[Trouble]:
    """The ports of the run's endpoints, its store and the hub that policies shut; of the rule EGRESS."""
    for resource in resources_in(started.document):
        yield from _shut_ports(resource, others, _asked_ports(started))


def _shut_ports(
    resource: RayResource, others: Sequence[Document], wanted: dict[int, str]
) -> Iterator[Trouble]:
    for group in resource.groups:
        policies = policies_for(group, others, "egress")
        open_to = _for_others(resource, policies, "egress")
        for port, purpose in wanted.items() if policies else []:
            if not any(rule.has_port(port) for rule in open_to):
                said = f"no policy lets {group.name} out to port {port}, where {purpose}"
                advice = "add it to the profile's network.ports and render anew"
                yield Trouble(_labels_path(group), said, advice)


def _asked_ports(started: Started) -> dict[int, str]:
    """What a run asks outside of its pods, and what for; a service asks the store alone."""
    run, stages = started.run, STAGES_OF_JOB[started.job]
    asked: dict[int, str] = {}
    is_hubs = run.training.base_model != TINY and not run.training.base_model_is_place
    elsewhere = HUB_ELSEWHERE & RayResource(started.document).head.variables.keys()
    if "training" in stages and is_hubs and not elsewhere:
        asked[HTTPS_PORT] = "the hub has the base model"
    if started.document.kind != "RayService":
        asked |= dict.fromkeys(ports_asked(run), "an endpoint of the run is")
    store = parse_qs(urlsplit(run.root).query).get("endpoint_override", [""])[0].rpartition(":")[2]
    if "://" in run.root:
        asked[int(store) if store.isdigit() else HTTPS_PORT] = "the runs are kept"
    return asked


def _for_others(resource: RayResource, policies: Sequence[Document], side: Side) -> list[PolicyRule]:
    """What the policies open to anybody but the resource's own pods."""
    found = rules_of(policies, side)
    return [rule for rule in found if not rule.is_for_own_pods_alone(resource.groups)]


def _labels_path(group: Group) -> str:
    return f"{group.path}.template.metadata.labels"


NETWORK_RULES: dict[str, SetRule] = {
    "network-closed": _is_closed,
    "network-open-to-all": _opens_no_port_to_all,
    "network-own-pods": _pods_reach_each_other,
    "network-operator": _operator_reaches_the_head,
    "network-clients": _clients_reach_the_model,
    EGRESS: _goes_out,
}
