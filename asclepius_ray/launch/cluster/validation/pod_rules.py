"""What would lose work, leak a key or open a door, in the pods of one Ray resource. Pure."""

from collections.abc import Iterator

from asclepius_ray.launch.cluster.pods import DRAIN_VARIABLE, SAFE_TO_EVICT
from asclepius_ray.launch.cluster.profile import SAVE_SECONDS, needed_grace_seconds
from asclepius_ray.launch.cluster.validation.findings import Trouble
from asclepius_ray.launch.cluster.validation.manifests import Group, RayResource
from asclepius_ray.launch.cluster.validation.operator_cluster_rules import Rule
from asclepius_ray.launch.cluster.validation.reading import (
    amount,
    flag_at,
    list_at,
    number_at,
    table_at,
    text_at,
    value_at,
)
from asclepius_ray.launch.cluster.yaml_text import Json

DEFAULT_DRAIN_SECONDS = DEFAULT_GRACE_SECONDS = 30
"""Ray's and Kubernetes' own, which leave nothing between the two."""
GRACE_OPTION = "--grace-seconds"
SECCOMP = ("RuntimeDefault", "Localhost")
PUBLIC_SERVICES = ("LoadBalancer", "NodePort")
MARKS_OF_SPOT = ("spot", "preemptible")


def _authentication(resource: RayResource) -> Iterator[Trouble]:
    if resource.cluster and text_at(resource.cluster, "authOptions", "mode") != "token":
        path = f"{resource.cluster_path}.authOptions.mode"
        yield Trouble(path, "nobody is asked for a token, also where this is left out", "set mode: token")


def _public_dashboard(resource: RayResource) -> Iterator[Trouble]:
    head = resource.head
    advice = "leave it out, and reach the dashboard through kubectl port-forward"
    if flag_at(head.value, "enableIngress"):
        yield Trouble(f"{head.path}.enableIngress", "it opens the dashboard, where jobs are started", advice)
    for keys in (("serviceType",), ("headService", "spec", "type")):
        if (kind := text_at(head.value, *keys)) in PUBLIC_SERVICES:
            path = ".".join((head.path, *keys))
            yield Trouble(path, f"a {kind} opens the dashboard, where jobs are started", advice)
    for group in resource.groups:
        if flag_at(group.pod, "hostNetwork"):
            path = f"{group.pod_path}.hostNetwork"
            yield Trouble(path, "every port of Ray is open on the node's own address", "leave it out")
        yield from _ports_of_the_node(group)


def _ports_of_the_node(group: Group) -> Iterator[Trouble]:
    for path, container in group.containers:
        for place, port in enumerate(list_at(container, "ports")):
            if number := number_at(port, "hostPort"):
                said = f"it opens port {number_at(port, 'containerPort'):g} as {number:g} of the node's own"
                yield Trouble(f"{path}.ports[{place}].hostPort", said, "leave it out")


def _non_root(resource: RayResource) -> Iterator[Trouble]:
    for group in resource.groups:
        if not flag_at(group.pod, "securityContext", "runAsNonRoot"):
            path = f"{group.pod_path}.securityContext.runAsNonRoot"
            yield Trouble(path, f"{group.name} may run as root", "set it to true")
    for name, path, container in _containers(resource):
        if table_at(container, "securityContext").get("runAsNonRoot", True) is not True:
            said = f"{name} may run as root, whatever its pod says"
            yield Trouble(f"{path}.securityContext.runAsNonRoot", said, "leave it out")
    for name, path, holder in [*_pods(resource), *_containers(resource)]:
        if value_at(holder, "securityContext", "runAsUser") == 0:
            said = f"{name} runs as root"
            yield Trouble(f"{path}.securityContext.runAsUser", said, "use 1000, the user of Ray's images")


def _rights(resource: RayResource) -> Iterator[Trouble]:
    for name, path, pod in _pods(resource):
        for key in ("hostPID", "hostIPC"):
            if flag_at(pod, key):
                said = f"{name} sees what else runs on its node"
                yield Trouble(f"{path}.{key}", said, "leave it out")
        if text_at(pod, "securityContext", "seccompProfile", "type") not in SECCOMP:
            said = f"{name} may make every system call"
            yield Trouble(f"{path}.securityContext.seccompProfile", said, "set type: RuntimeDefault")
    for name, path, container in _containers(resource):
        for key, said, advice in _rights_of(table_at(container, "securityContext")):
            yield Trouble(f"{path}.securityContext.{key}", f"{name} {said}", advice)


def _rights_of(context: Json) -> Iterator[tuple[str, str, str]]:
    """What a container's context gives it: under which key, what that is, what to do."""
    if context.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation", "may gain rights", "set it to false"
    if flag_at(context, "privileged"):
        yield "privileged", "has all rights on its node", "leave it out"
    if "ALL" not in list_at(context, "capabilities", "drop"):
        yield "capabilities.drop", "keeps capabilities that Ray does not need", "set [ALL]"
    if list_at(context, "capabilities", "add"):
        yield "capabilities.add", "gets capabilities that Ray does not need", "leave it out"
    if "seccompProfile" in context and text_at(context, "seccompProfile", "type") not in SECCOMP:
        yield "seccompProfile", "may make every system call, whatever its pod says", "leave it out"


def _pods(resource: RayResource) -> list[tuple[str, str, Json]]:
    """Each group's name, with its pod and the pod's path."""
    return [(group.name, group.pod_path, group.pod) for group in resource.groups]


def _containers(resource: RayResource) -> list[tuple[str, str, Json]]:
    """Each container with its path and the name of its group; of the autoscaler's, which the operator adds to
    the head's pod, what the resource says of it."""
    found = [(group.name, path, one) for group in resource.groups for path, one in group.containers]
    if resource.autoscales:
        options = table_at(resource.cluster, "autoscalerOptions")
        found.append(("the autoscaler's container", f"{resource.cluster_path}.autoscalerOptions", options))
    return found


def _drain_hook(resource: RayResource) -> Iterator[Trouble]:
    for group in resource.workers:
        if not hook_seconds(group):
            said = f"nothing tells Ray before a pod of {group.name} is ended: what runs there is cut off"
            path = f"{group.pod_path}.containers[0].lifecycle.preStop"
            yield Trouble(
                path, said, f"run asclepius drain-watch --now {GRACE_OPTION} with the drain's seconds"
            )


def hook_seconds(group: Group) -> float:
    """How long a pod drains before it is told to end; 0 where it does not."""
    hook = [str(word) for word in list_at(group.ray_container, "lifecycle", "preStop", "exec", "command")]
    if not {"drain-watch", "--now", GRACE_OPTION} <= set(hook):
        return 0
    place = hook.index(GRACE_OPTION) + 1
    return amount(hook[place]) if place < len(hook) else 0


def _grace(resource: RayResource) -> Iterator[Trouble]:
    for group in resource.groups:
        variable = group.variables.get(DRAIN_VARIABLE, {})
        drain = amount(variable["value"]) if "value" in variable else DEFAULT_DRAIN_SECONDS
        hook = hook_seconds(group)
        needed = needed_grace_seconds(drain, hook)
        grace = number_at(group.pod, "terminationGracePeriodSeconds", default=DEFAULT_GRACE_SECONDS)
        if grace < needed:
            before = f" after up to {hook:g} s of its preStop hook" if hook else ""
            said = (
                f"{group.name} is killed after {grace:g} s; it drains for {drain:g} s ({DRAIN_VARIABLE})"
                f"{before} and saves for up to {SAVE_SECONDS} s"
            )
            path = f"{group.pod_path}.terminationGracePeriodSeconds"
            yield Trouble(path, said, f"set {needed} or more, or drain for less")


def _mounts(resource: RayResource) -> Iterator[Trouble]:
    for group in resource.groups:
        volumes = {text_at(volume, "name") for volume in list_at(group.pod, "volumes")}
        mounts = set[str]()
        holders = group.containers
        if group.is_head and resource.autoscales:
            # The operator adds the autoscaler's container to the pod.
            options = f"{resource.cluster_path}.autoscalerOptions"
            holders = [*holders, (options, table_at(resource.cluster, "autoscalerOptions"))]
        for path, container in holders:
            mounted = {text_at(mount, "name") for mount in list_at(container, "volumeMounts")}
            for name in sorted(mounted - volumes):
                said = f"{group.name} mounts {name!r}, which is no volume of it"
                yield Trouble(f"{path}.volumeMounts", said, "add the volume")
            mounts |= mounted
        for name in sorted(volumes - mounts):
            yield Trouble(f"{group.pod_path}.volumes", f"{name!r} is not mounted", "mount it, or remove it")


def _pinned_image(resource: RayResource) -> Iterator[Trouble]:
    images = {group.name: text_at(group.ray_container, "image") for group in resource.groups}
    for group in resource.groups:
        image, path = images[group.name], f"{group.pod_path}.containers[0].image"
        if not is_pinned(image):
            said = f"{image!r} may be another image tomorrow"
            yield Trouble(path, said, "name a version or a digest, not latest")
        elif image != images["head"]:
            said = f"{group.name} runs {image!r} and the head {images['head']!r}"
            yield Trouble(path, said, "use one image: Ray and this project must be the same on all nodes")


def is_pinned(image: str) -> bool:
    """Whether an image is named by a version or a digest."""
    if "@sha256:" in image:
        return True
    tag = image.rpartition("/")[2].partition(":")[2]
    return bool(tag) and tag != "latest"


def _head_stays(resource: RayResource) -> Iterator[Trouble]:
    for head in resource.groups[:1]:
        if value_at(head.value, "template", "metadata", "annotations", SAFE_TO_EVICT) != "false":
            path = f"{head.path}.template.metadata.annotations"
            said = "the cluster's autoscaler may empty the head's node, and the job ends with the head"
            yield Trouble(path, said, f'add {SAFE_TO_EVICT}: "false"')
        for key in ("nodeSelector", "tolerations"):
            if _names_spot(head, key):
                said = "the head would be on a node that is taken away, and the job ends with the head"
                yield Trouble(f"{head.pod_path}.{key}", said, "keep spot nodes for the workers")


def _names_spot(group: Group, key: str) -> bool:
    found = value_at(group.pod, key)
    pairs = [*found.items()] if isinstance(found, dict) else []
    tolerated = found if isinstance(found, list) else []
    pairs += [(text_at(one, "key"), value_at(one, "value")) for one in tolerated]
    return any(_is_of_spot(*pair) for pair in pairs)


def _is_of_spot(label: object, value: object) -> bool:
    """Whether a node with this label is one that is taken away: `gke-spot: "false"` is none."""
    words = f"{label} {value}".lower()
    return str(value).lower() != "false" and any(mark in words for mark in MARKS_OF_SPOT)


def _head_without_work(resource: RayResource) -> Iterator[Trouble]:
    for head in resource.groups[:1]:
        given = value_at(head.value, "rayStartParams", "num-cpus"), value_at(head.value, "resources", "CPU")
        if "0" not in given:
            path = f"{head.path}.rayStartParams.num-cpus"
            said = "tasks may run on the head, and one that takes its memory ends the job"
            yield Trouble(path, said, 'set "0"')


def _requests_are_limits(resource: RayResource) -> Iterator[Trouble]:
    for group in resource.groups:
        asked = table_at(group.ray_container, "resources", "requests")
        limits = table_at(group.ray_container, "resources", "limits")
        path = f"{group.pod_path}.containers[0].resources"
        for name in ("cpu", "memory"):
            if name not in limits:
                said = f"{group.name} has no limit of {name}: Ray would count all of its node's"
                yield Trouble(f"{path}.limits.{name}", said, "write what a node shall have")
            elif name in asked and amount(asked[name]) != amount(limits[name]):
                said = f"{group.name} asks for {asked[name]} and Ray counts on {limits[name]}"
                yield Trouble(f"{path}.requests.{name}", said, "set both to the same")
        for name in asked:
            # Of devices there is no part: Kubernetes takes no pod that may have more than it asks for.
            if "/" in str(name) and amount(asked[name]) != amount(limits.get(name, 0)):
                said = f"{group.name} asks for {asked[name]} of {name} and its limit is {limits.get(name, 0)}"
                yield Trouble(f"{path}.requests", f"{said}: Kubernetes refuses it", "set both to the same")


POD_RULES: dict[str, Rule] = {
    "authentication-on": _authentication,
    "no-public-dashboard": _public_dashboard,
    "non-root": _non_root,
    "no-rights": _rights,
    "drain-hook": _drain_hook,
    "grace-over-drain": _grace,
    "volumes-mounted": _mounts,
    "image-pinned": _pinned_image,
    "head-stays": _head_stays,
    "head-without-work": _head_without_work,
    "requests-are-limits": _requests_are_limits,
}
