"""What KubeRay's operator refuses of a cluster that the API server has taken. Pure.

The rules of its validation.go (KubeRay 1.7), which no schema holds.
"""

import re
from collections.abc import Callable, Iterator

from asclepius_ray.launch.cluster.validation.findings import Trouble
from asclepius_ray.launch.cluster.validation.manifests import Group, RayResource
from asclepius_ray.launch.cluster.validation.reading import (
    flag_at,
    number_at,
    table_at,
    text_at,
    value_at,
    version_of,
)

MAX_NAME_CHARACTERS = {"RayCluster": 53, "RayJob": 47, "RayService": 47}
"""The longest name of a service or pod that the operator makes from it has 63."""
RESOURCE_PARAMETERS = ("num-cpus", "num-gpus", "memory", "resources")
MANAGERS = ("ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue")
AUTOSCALER_VARIABLE = "RAY_enable_autoscaler_v2"
V2_BY_ITSELF = (2, 47)
"""From this Ray on the second autoscaler is the default."""
_DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_LABEL_PART = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_LABEL_KEY = re.compile(rf"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?{_LABEL_PART}")
_LABEL_VALUE = re.compile(rf"({_LABEL_PART})?")
_LABELS_OF_KUBERAY = ("app.kubernetes.io/name", "app.kubernetes.io/created-by")
_PREFIX_OF_KUBERAY = "ray.io/"

Rule = Callable[[RayResource], Iterator[Trouble]]


def _name(resource: RayResource) -> Iterator[Trouble]:
    name, most = resource.document.name, MAX_NAME_CHARACTERS[resource.kind]
    if len(name) > most or not _DNS_LABEL.fullmatch(name):
        said = f"{name!r} is not a DNS label of at most {most} characters"
        yield Trouble("metadata.name", said, "use small letters, digits and hyphens, a letter first")


def _container(resource: RayResource) -> Iterator[Trouble]:
    for group in resource.groups:
        if not group.ray_container:
            path = f"{group.pod_path}.containers"
            yield Trouble(path, f"{group.name} has no container", "add the one that runs Ray, as the first")


def _resources_once(resource: RayResource) -> Iterator[Trouble]:
    for group in resource.groups:
        given = [name for name in RESOURCE_PARAMETERS if value_at(group.value, "rayStartParams", name)]
        if given and table_at(group.value, "resources"):
            path = f"{group.path}.rayStartParams.{given[0]}"
            yield Trouble(path, "resources are given here and in resources", "leave one of them out")


def _start_labels(resource: RayResource) -> Iterator[Trouble]:
    for group in resource.groups:
        if "labels" in table_at(group.value, "rayStartParams"):
            path = f"{group.path}.rayStartParams.labels"
            yield Trouble(path, "labels are not taken from here", f"put them under {group.path}.labels")


def _label_syntax(resource: RayResource) -> Iterator[Trouble]:
    for group in resource.groups:
        for key, value in table_at(group.value, "labels").items():
            if not _LABEL_KEY.fullmatch(str(key)) or not _LABEL_VALUE.fullmatch(str(value)):
                said = f"{key!r}: {value!r} is no label of Kubernetes"
                yield Trouble(f"{group.path}.labels", said, "use letters, digits, and -_. between them")


def _labels_of_pods(resource: RayResource) -> Iterator[Trouble]:
    """KubeRay keeps a pod's own label where it would set one, and its services then select nothing."""
    for group in resource.groups:
        for key in group.labels:
            if key in _LABELS_OF_KUBERAY or str(key).startswith(_PREFIX_OF_KUBERAY):
                said = f"KubeRay sets {key!r} itself, and finds {group.name}'s pods by it"
                yield Trouble(f"{group.path}.template.metadata.labels", said, "use another key")


def _redis(resource: RayResource) -> Iterator[Trouble]:
    head, tolerant = resource.head, bool(table_at(resource.cluster, "gcsFaultToleranceOptions"))
    forbidden = ["REDIS_USERNAME", "RAY_REDIS_ADDRESS", *(["REDIS_PASSWORD"] if tolerant else [])]
    advice = f"give it under {resource.cluster_path}.gcsFaultToleranceOptions"
    for name in forbidden:
        if name in head.variables:
            yield Trouble(f"{head.pod_path}.containers[0].env", f"{name} is set by hand", advice)
    parameters = ["redis-username", *(["redis-password"] if tolerant else [])]
    for name in parameters:
        if value_at(head.value, "rayStartParams", name):
            yield Trouble(f"{head.path}.rayStartParams.{name}", "it is set by hand", advice)


def _autoscaler_variable(resource: RayResource) -> Iterator[Trouble]:
    for group in resource.groups[:1]:
        if AUTOSCALER_VARIABLE not in group.variables:
            continue
        path = f"{group.pod_path}.containers[0].env"
        if not resource.autoscales and text_at(group.variables[AUTOSCALER_VARIABLE], "value") in (
            "1",
            "true",
        ):
            said = f"{AUTOSCALER_VARIABLE} is set and no autoscaler runs"
            yield Trouble(
                path, said, f"set {resource.cluster_path}.enableInTreeAutoscaling: true, or remove it"
            )
        if resource.autoscales and text_at(resource.cluster, "autoscalerOptions", "version"):
            said = f"{AUTOSCALER_VARIABLE} says what autoscalerOptions.version says too"
            yield Trouble(path, said, "remove the variable")


def _suspended_group(resource: RayResource) -> Iterator[Trouble]:
    for group in resource.workers:
        if resource.autoscales and flag_at(group.value, "suspend"):
            said = f"{group.name} is suspended, which the autoscaler does not know"
            yield Trouble(f"{group.path}.suspend", said, "remove it; set maxReplicas: 0 to keep nodes away")


def _restart_policy(resource: RayResource) -> Iterator[Trouble]:
    for group in resource.groups if _uses_autoscaler_v2(resource) else []:
        if text_at(group.pod, "restartPolicy") not in ("", "Never"):
            said = f"{group.name}: the second autoscaler replaces pods, and no pod may restart by itself"
            yield Trouble(f"{group.pod_path}.restartPolicy", said, "set Never")


def _replica_limits(resource: RayResource) -> Iterator[Trouble]:
    for group in resource.workers:
        missing = [key for key in ("minReplicas", "maxReplicas") if key not in group.value]
        if missing and not resource.autoscales:
            said = f"{group.name} has no {missing[0]}, and no autoscaler to choose"
            yield Trouble(f"{group.path}.{missing[0]}", said, "write it")
        fewest = number_at(group.value, "minReplicas")
        most = number_at(group.value, "maxReplicas", default=fewest)
        if fewest > most:
            said = f"minReplicas {fewest:g} is above maxReplicas {most:g}"
            yield Trouble(f"{group.path}.minReplicas", said, "lower it, or raise maxReplicas")


def _idle_timeout(resource: RayResource) -> Iterator[Trouble]:
    for group in resource.workers:
        if "idleTimeoutSeconds" in group.value and not _uses_autoscaler_v2(resource):
            said = f"{group.name} has an idle time of its own, which only the second autoscaler takes"
            advice = "set enableInTreeAutoscaling: true and autoscalerOptions.version: v2, or remove it"
            yield Trouble(f"{group.path}.idleTimeoutSeconds", said, advice)
    places = [(f"{group.path}.idleTimeoutSeconds", group.value) for group in resource.workers]
    options = table_at(resource.cluster, "autoscalerOptions")
    places.append((f"{resource.cluster_path}.autoscalerOptions.idleTimeoutSeconds", options))
    for path, holder in places:
        if number_at(holder, "idleTimeoutSeconds") < 0:
            yield Trouble(path, "it is negative", "set 0 or more seconds")


def _priority(resource: RayResource) -> Iterator[Trouble]:
    version = version_of(text_at(resource.cluster, "rayVersion"))
    for group in resource.workers:
        if number_at(group.value, "priority") and not (_uses_autoscaler_v2(resource) and version >= (2, 56)):
            said = (
                f"{group.name} has a priority, which only the second autoscaler of Ray 2.56 and later reads"
            )
            advice = "set autoscalerOptions.version: v2 and rayVersion, or remove it"
            yield Trouble(f"{group.path}.priority", said, advice)


def _token_version(resource: RayResource) -> Iterator[Trouble]:
    version = text_at(resource.cluster, "rayVersion")
    if text_at(resource.cluster, "authOptions", "mode") == "token" and version_of(version) < (2, 52):
        said = f"token authentication needs Ray 2.52 or later, and {version or 'no version'!r} stands here"
        yield Trouble(f"{resource.cluster_path}.rayVersion", said, "write the image's Ray version")


def _kubernetes_token(resource: RayResource) -> Iterator[Trouble]:
    if not flag_at(resource.cluster, "authOptions", "enableK8sTokenAuth"):
        return
    path = f"{resource.cluster_path}.authOptions.enableK8sTokenAuth"
    if resource.kind != "RayCluster":
        yield Trouble(path, f"a {resource.kind} does not take it", "remove it; mode: token is enough")
    elif version_of(text_at(resource.cluster, "rayVersion")) < (2, 55):
        yield Trouble(path, "it needs Ray 2.55 or later", "remove it, or use a later Ray")


def _managed_by(resource: RayResource) -> Iterator[Trouble]:
    manager = value_at(resource.spec, "managedBy")
    if manager is not None and manager not in MANAGERS:
        yield Trouble("spec.managedBy", f"{manager!r} is no manager", f"use one of {', '.join(MANAGERS)}")


def _uses_autoscaler_v2(resource: RayResource) -> bool:
    if not resource.autoscales:
        return False
    chosen = text_at(resource.cluster, "autoscalerOptions", "version")
    variable = text_at(_variable(resource.head), "value")
    by_itself = version_of(text_at(resource.cluster, "rayVersion")) >= V2_BY_ITSELF
    return chosen == "v2" if chosen else by_itself or variable in ("1", "true")


def _variable(group: Group) -> dict[str, object]:
    return group.variables.get(AUTOSCALER_VARIABLE, {})


CLUSTER_RULES: dict[str, Rule] = {
    "operator-name": _name,
    "operator-container": _container,
    "operator-resources-once": _resources_once,
    "operator-start-labels": _start_labels,
    "operator-label-syntax": _label_syntax,
    "operator-labels-of-pods": _labels_of_pods,
    "operator-redis": _redis,
    "operator-autoscaler-variable": _autoscaler_variable,
    "operator-suspended-group": _suspended_group,
    "operator-restart-policy": _restart_policy,
    "operator-replica-limits": _replica_limits,
    "operator-idle-timeout": _idle_timeout,
    "operator-priority": _priority,
    "operator-token-version": _token_version,
    "operator-kubernetes-token": _kubernetes_token,
    "operator-managed-by": _managed_by,
}
