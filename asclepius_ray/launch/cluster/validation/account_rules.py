"""Who holds the head's right to change the cluster at Kubernetes' API: the autoscaler alone. Pure."""

from collections.abc import Iterator

from asclepius_ray.launch.cluster import api_access
from asclepius_ray.launch.cluster.validation.findings import Trouble
from asclepius_ray.launch.cluster.validation.manifests import Group, RayResource
from asclepius_ray.launch.cluster.validation.operator_cluster_rules import Rule
from asclepius_ray.launch.cluster.validation.reading import list_at, table_at, text_at, value_at
from asclepius_ray.launch.cluster.yaml_text import Json

_RENDER = "render the resource anew"


def _no_job_has_the_token(resource: RayResource) -> Iterator[Trouble]:
    for group in resource.groups:
        if value_at(group.pod, "automountServiceAccountToken") is not False:
            said = f"a job on {group.name} reads the token of the pod's service account"
            yield Trouble(f"{group.pod_path}.automountServiceAccountToken", said, "set it to false")
        tokens = _tokens_of(group)
        for path, container in group.containers:
            for place, mount in enumerate(list_at(container, "volumeMounts")):
                if text_at(mount, "name") in tokens:
                    said = f"a container of {group.name} sees a token for Kubernetes' API"
                    advice = "mount it into the autoscaler's container alone"
                    yield Trouble(f"{path}.volumeMounts[{place}]", said, advice)


def _the_autoscaler_has_it(resource: RayResource) -> Iterator[Trouble]:
    head = resource.head
    if not resource.autoscales or value_at(head.pod, "automountServiceAccountToken") is not False:
        return
    mounts = list_at(resource.cluster, "autoscalerOptions", "volumeMounts")
    mounted = {text_at(mount, "name") for mount in mounts if text_at(mount, "mountPath") == api_access.FOLDER}
    if not mounted & _tokens_of(head):
        path = f"{resource.cluster_path}.autoscalerOptions.volumeMounts"
        yield Trouble(path, "the autoscaler has no token for Kubernetes' API: no worker would come", _RENDER)


def _tokens_of(group: Group) -> set[str]:
    """The pod's volumes with a token for Kubernetes' API; one for an audience is for somebody else."""
    return {
        text_at(volume, "name")
        for volume in list_at(group.pod, "volumes")
        for source in list_at(volume, "projected", "sources")
        if _is_for_the_api(source)
    }


def _is_for_the_api(source: Json) -> bool:
    token = table_at(source, "serviceAccountToken")
    return bool(token) and not text_at(token, "audience")


ACCOUNT_RULES: dict[str, Rule] = {
    "account-token": _no_job_has_the_token,
    "autoscaler-token": _the_autoscaler_has_it,
}
