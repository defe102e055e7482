"""A RayService that would cut streams, stand without its proxy or hand keys around in plain HTTP. Pure."""

from collections.abc import Iterator, Sequence
from typing import Any

from asclepius_ray.config import parse_section
from asclepius_ray.errors import ConfigError
from asclepius_ray.launch.cluster.pods import DRAIN_VARIABLE
from asclepius_ray.launch.cluster.profile import SPARE_SECONDS
from asclepius_ray.launch.cluster.serve_config import SERVE_PORT
from asclepius_ray.launch.cluster.validation.doors import backends_of, has_certificate
from asclepius_ray.launch.cluster.validation.findings import Trouble
from asclepius_ray.launch.cluster.validation.manifests import (
    Document,
    Group,
    RayResource,
    applications_of,
    resources_in,
    yaml_table,
)
from asclepius_ray.launch.cluster.validation.operator_cluster_rules import Rule
from asclepius_ray.launch.cluster.validation.pod_rules import (
    DEFAULT_DRAIN_SECONDS,
    GRACE_OPTION,
    PUBLIC_SERVICES,
    hook_seconds,
)
from asclepius_ray.launch.cluster.validation.policies import matches
from asclepius_ray.launch.cluster.validation.reading import (
    amount,
    flag_at,
    list_at,
    number_at,
    table_at,
    text_at,
    value_at,
)
from asclepius_ray.launch.cluster.validation.set_rules import SetRule
from asclepius_ray.launch.cluster.yaml_text import Json
from asclepius_ray.serving.config import ServingConfig
from asclepius_ray.serving.proxy.launch import BINARY_VARIABLE

PROXY_VARIABLE = "RAY_SERVE_ENABLE_HA_PROXY"
_CONFIGURATION = "spec.serveConfigV2"


def _outlives_streams(service: RayResource) -> Iterator[Trouble]:
    delay = number_at(service.spec, "rayClusterDeletionDelaySeconds", default=60)
    for serving in _serving_of(service):
        if 0 <= delay < serving.drain_seconds:
            said = (
                f"after an upgrade the old cluster goes after {delay:g} s, and an answer may take "
                f"{serving.drain_seconds:g} s (serving.drain_seconds)"
            )
            yield Trouble("spec.rayClusterDeletionDelaySeconds", said, "set more than that")
        for group in service.workers:
            yield from _finishes_answers(group, serving.drain_seconds)


def _finishes_answers(group: Group, drain_seconds: float) -> Iterator[Trouble]:
    drains = hook_seconds(group)
    if drains < drain_seconds:
        said = (
            f"a pod of {group.name} that is taken away drains for {drains:g} s, and an answer may take "
            f"{drain_seconds:g} s (serving.drain_seconds)"
        )
        path = f"{group.pod_path}.containers[0].lifecycle.preStop"
        yield Trouble(path, said, f"drain with asclepius drain-watch --now {GRACE_OPTION} {drain_seconds:g}")
        return
    variable = group.variables.get(DRAIN_VARIABLE, {})
    needed = (
        drains + (amount(variable["value"]) if "value" in variable else DEFAULT_DRAIN_SECONDS) + SPARE_SECONDS
    )
    if number_at(group.pod, "terminationGracePeriodSeconds") < needed:
        said = f"{group.name} is killed before its two drains are over, which may take {needed:g} s"
        yield Trouble(f"{group.pod_path}.terminationGracePeriodSeconds", said, f"set {needed:g} or more")


def _head_without_traffic(service: RayResource) -> Iterator[Trouble]:
    if service.cluster and not flag_at(service.spec, "excludeHeadPodFromServeSvc"):
        said = "requests go through the head too, and its load is that of the whole cluster's state"
        yield Trouble("spec.excludeHeadPodFromServeSvc", said, "set it to true")


def _proxy_of_each_node(service: RayResource) -> Iterator[Trouble]:
    configuration = yaml_table(text_at(service.spec, "serveConfigV2"))
    wanted: list[tuple[tuple[str, ...], Any, str]] = [
        (("proxy_location",), "EveryNode", "a worker without a proxy is never ready"),
        (("http_options", "host"), "0.0.0.0", "the service reaches a pod at its own address alone"),
        (("http_options", "port"), SERVE_PORT, "the service leads to this port"),
    ]
    for keys, value, why in wanted if configuration else []:
        if value_at(configuration, *keys) != value:
            yield Trouble(".".join((_CONFIGURATION, *keys)), why, f"set {value}")


def _haproxy(service: RayResource) -> Iterator[Trouble]:
    for group in service.groups:
        if text_at(group.variables.get(PROXY_VARIABLE), "value") != "1":
            said = (
                f"{group.name} has no HAProxy: a stream whose replica is killed ends without an error event, "
                "and no guard takes free text out of headers"
            )
            yield Trouble(f"{group.pod_path}.containers[0].env", said, "render the service anew")
            continue
        binary = text_at(group.variables.get(BINARY_VARIABLE), "value")
        if not any(_makes(container, binary) for container in group.preparations):
            said = f"no step of {group.name} makes {binary or BINARY_VARIABLE}, and no proxy would start"
            yield Trouble(f"{group.pod_path}.initContainers", said, "render the service anew")


def _makes(container: Any, binary: str) -> bool:
    folder = binary.rpartition("/")[0]
    return bool(folder) and folder in list_at(container, "command")


def _replica_fits_a_node(service: RayResource) -> Iterator[Trouble]:
    for serving in _serving_of(service):
        most = max((group.gpus for group in service.workers), default=0)
        if serving.use_gpu and serving.tensor_parallel > most:
            path = f"{service.cluster_path}.workerGroupSpecs"
            said = (
                f"a replica takes {serving.tensor_parallel} GPUs of one node, and the largest node has {most}"
            )
            yield Trouble(path, said, "give the nodes more GPUs, or lower serving.tensor_parallel")


def _stays_awake(service: RayResource) -> Iterator[Trouble]:
    """Proxies run where replicas do, and the head takes no requests: with the last replica the door goes."""
    for place, serving in enumerate(_serving_of(service)):
        if serving.replicas.fewest == 0:
            path = f"{_CONFIGURATION}.applications[{place}].args.serving.replicas"
            said = "once the last replica has gone no pod is ready, and no request can bring one back"
            yield Trouble(path, said, "set the fewest to 1 or more")


def _audit_is_kept(service: RayResource) -> Iterator[Trouble]:
    for place, serving in enumerate(_serving_of(service)):
        for group in service.workers if serving.audit else []:
            if not any(_is_written(group, mount, serving.audit) for mount in _mounts(group)):
                path = f"{_CONFIGURATION}.applications[{place}].args.serving.audit"
                said = f"{group.name} can write to no volume at {serving.audit!r}: the lines end with the pod"
                yield Trouble(path, said, "name a folder of the shared volume, mounted for writing")


def _mounts(group: Group) -> list[Any]:
    return [mount for mount in list_at(group.ray_container, "volumeMounts") if isinstance(mount, dict)]


def _is_written(group: Group, mount: Any, folder: str) -> bool:
    kept = {
        text_at(volume, "name")
        for volume in list_at(group.pod, "volumes")
        if table_at(volume, "persistentVolumeClaim")
    }
    at = text_at(mount, "mountPath").rstrip("/")
    is_below = folder == at or folder.startswith(f"{at}/")
    return is_below and text_at(mount, "name") in kept and not flag_at(mount, "readOnly")


def _plain_http_outside(document: Document, others: Sequence[Document]) -> Iterator[Trouble]:
    said = "keys and notes would go through the network in plain HTTP"
    advice = "leave it out, and put an ingress or a gateway before the service that ends TLS"
    if document.kind == "RayService":
        kind = text_at(document.value, "spec", "serveService", "spec", "type")
        if kind in PUBLIC_SERVICES:
            yield Trouble("spec.serveService.spec.type", f"a {kind}: {said}", advice)
    if document.kind == "Service" and text_at(document.value, "spec", "type") in PUBLIC_SERVICES:
        for place, port in enumerate(list_at(document.value, "spec", "ports")):
            if _is_served(port) and not has_certificate(document):
                yield Trouble(f"spec.ports[{place}]", said, advice)
    is_plain = not list_at(document.value, "spec", "tls") and not has_certificate(document)
    if is_plain and any(_leads_to_the_model(backend) for _, backend in backends_of(document)):
        yield Trouble("spec.tls", said, "name the secret with the certificate")


def _is_served(port: Any) -> bool:
    numbers = number_at(port, "port"), number_at(port, "targetPort")
    return SERVE_PORT in numbers or text_at(port, "targetPort") == "serve"


def _leads_to_the_model(backend: Json) -> bool:
    port = table_at(backend, "service", "port")
    is_kuberays = text_at(backend, "service", "name").endswith(("-serve-svc", "-head-svc"))
    return number_at(port, "number") == SERVE_PORT or (is_kuberays and text_at(port, "name") == "serve")


def _serving_budget(document: Document, others: Sequence[Document]) -> Iterator[Trouble]:
    budgets = [found for found in others if found.kind == "PodDisruptionBudget"]
    for service in (found for found in resources_in(document) if found.kind == "RayService"):
        for group in service.workers:
            if not any(matches(value_at(found.value, "spec", "selector"), group.labels) for found in budgets):
                path = f"{group.path}.template.metadata.labels"
                said = f"no PodDisruptionBudget keeps {group.name}: all of its nodes may be drained at once"
                yield Trouble(path, said, "add one with minAvailable for the workers' labels")


def _budget_counts(document: Document, others: Sequence[Document]) -> Iterator[Trouble]:
    if document.kind != "PodDisruptionBudget":
        return
    selector = value_at(document.value, "spec", "selector")
    selected = [
        group.name
        for other in others
        for resource in resources_in(other)
        for group in resource.groups
        if matches(selector, group.labels)
    ]
    said = "Kubernetes cannot count the pods of KubeRay's resources, and would let no node be drained"
    advice = "give minAvailable as a number of pods"
    spec = table_at(document.value, "spec")
    if selected and spec.get("maxUnavailable", 0) != 0:
        yield Trouble("spec.maxUnavailable", said, advice)
    if selected and isinstance(spec.get("minAvailable", 1), str):
        yield Trouble("spec.minAvailable", said, advice)


def _serving_of(service: RayResource) -> list[ServingConfig]:
    """The settings of each application; none where another rule says what is wrong with them."""
    try:
        return [
            parse_section(ServingConfig, value_at(application, "args", "serving") or {}, "serving")
            for application in applications_of(service)
        ]
    except ConfigError:
        return []


SERVING_RULES: dict[str, Rule] = {
    "service-outlives-streams": _outlives_streams,
    "service-head-idle": _head_without_traffic,
    "service-proxy": _proxy_of_each_node,
    "service-haproxy": _haproxy,
    "service-replica-fits": _replica_fits_a_node,
    "service-audit-kept": _audit_is_kept,
    "service-stays-awake": _stays_awake,
}
SERVING_SET_RULES: dict[str, SetRule] = {
    "service-behind-tls": _plain_http_outside,
    "service-budget": _serving_budget,
    "budget-counts": _budget_counts,
}
