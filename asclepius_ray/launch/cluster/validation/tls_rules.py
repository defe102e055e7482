"""TLS between the nodes: all of them or none, each with its own certificate, and no key too many. Pure."""

from collections.abc import Iterator

from asclepius_ray.launch.cluster.node_certificates import FILES, USE_VARIABLE
from asclepius_ray.launch.cluster.validation.findings import Trouble
from asclepius_ray.launch.cluster.validation.manifests import Group, RayResource
from asclepius_ray.launch.cluster.validation.operator_cluster_rules import Rule
from asclepius_ray.launch.cluster.validation.reading import list_at, table_at, text_at
from asclepius_ray.launch.cluster.yaml_text import Json


def _all_or_none(resource: RayResource) -> Iterator[Trouble]:
    using = [group for group in resource.groups if _uses_tls(group.variables)]
    if not using:
        return
    advice = "set [tls] in the profile and render anew"
    for group in resource.groups:
        if group not in using:
            said = (
                f"{group.name} speaks without TLS and {using[0].name} with it: they cannot reach each other"
            )
            yield Trouble(f"{group.pod_path}.containers[0].env", said, advice)
    options = table_at(resource.cluster, "autoscalerOptions")
    if resource.autoscales and not _uses_tls(_variables(options)):
        said = "the autoscaler speaks without TLS, and the head would not let it in: no worker would come"
        yield Trouble(f"{resource.cluster_path}.autoscalerOptions.env", said, advice)


def _has_a_certificate(resource: RayResource) -> Iterator[Trouble]:
    for group in resource.groups:
        for name in FILES if _uses_tls(group.variables) else ():
            if name not in group.variables:
                path = f"{group.pod_path}.containers[0].env"
                yield Trouble(path, f"{group.name} uses TLS and has no {name}", "name the file")
            elif not _is_prepared(group, text_at(group.variables[name], "value")):
                said = f"nothing makes or mounts {group.name}'s {name}, and Ray would not start"
                yield Trouble(
                    f"{group.pod_path}.initContainers", said, "set [tls] in the profile and render anew"
                )
                break


def _no_key_of_the_authority(resource: RayResource) -> Iterator[Trouble]:
    for group in resource.groups:
        signing = {
            text_at(mount, "name")
            for container in group.preparations
            for mount in list_at(container, "volumeMounts")
        }
        secrets = {
            text_at(volume, "name") for volume in list_at(group.pod, "volumes") if table_at(volume, "secret")
        }
        for place, mount in enumerate(list_at(group.ray_container, "volumeMounts")):
            if _uses_tls(group.variables) and text_at(mount, "name") in signing & secrets:
                said = f"a job on {group.name} sees the authority's key, and could make certificates"
                path = f"{group.pod_path}.containers[0].volumeMounts[{place}]"
                yield Trouble(path, said, "mount the secret into the init container alone")


def _uses_tls(variables: dict[str, Json]) -> bool:
    return text_at(variables.get(USE_VARIABLE), "value") in ("1", "true")


def _variables(holder: Json) -> dict[str, Json]:
    return {text_at(found, "name"): found for found in list_at(holder, "env") if isinstance(found, dict)}


def _is_prepared(group: Group, file: str) -> bool:
    """Whether a file is on a volume that an init container fills, or that is not empty by itself."""
    filled = {
        text_at(mount, "name")
        for container in group.preparations
        for mount in list_at(container, "volumeMounts")
    }
    empty = {
        text_at(volume, "name") for volume in list_at(group.pod, "volumes") if "emptyDir" in table_at(volume)
    }
    return any(
        file.startswith(f"{folder.rstrip('/')}/") and (name in filled or name not in empty)
        for name, folder in group.mount_paths.items()
        if folder
    )


TLS_RULES: dict[str, Rule] = {
    "tls-on-all-nodes": _all_or_none,
    "tls-certificate": _has_a_certificate,
    "tls-authority-key": _no_key_of_the_authority,
}
