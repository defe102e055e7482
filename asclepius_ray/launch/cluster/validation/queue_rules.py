"""What Kueue refuses of a Ray resource that is labelled for it, and what YuniKorn makes no gang of. Pure."""

from collections.abc import Iterator

from asclepius_ray.launch.cluster.queues import GANG_LABEL, KUEUE_ELASTIC, KUEUE_LABEL
from asclepius_ray.launch.cluster.validation.findings import Trouble
from asclepius_ray.launch.cluster.validation.manifests import RayResource
from asclepius_ray.launch.cluster.validation.operator_cluster_rules import Rule
from asclepius_ray.launch.cluster.validation.reading import (
    flag_at,
    number_at,
    table_at,
    text_at,
    value_at,
)

MOST_GROUPS = 7
"""Kueue's own limit: a workload has eight sets of pods, and one is the head's."""


def _kueue(resource: RayResource) -> Iterator[Trouble]:
    value, cluster = resource.document.value, resource.cluster_path
    if not value_at(value, "metadata", "labels", KUEUE_LABEL):
        return
    if resource.kind == "RayJob":
        yield from _kueue_job(resource)
    is_elastic = text_at(value, "metadata", "annotations", KUEUE_ELASTIC) == "true"
    if resource.autoscales and not is_elastic:
        said = "Kueue counts the workers once, and takes nothing that an autoscaler changes"
        advice = f'set it to false, with all workers from the start, or annotate {KUEUE_ELASTIC}: "true"'
        yield Trouble(f"{cluster}.enableInTreeAutoscaling", said, advice)
    groups = resource.workers
    if len(groups) > MOST_GROUPS:
        said = f"Kueue takes up to {MOST_GROUPS} groups of workers, and there are {len(groups)}"
        yield Trouble(f"{cluster}.workerGroupSpecs", said, "put several of them together")


def _kueue_job(job: RayResource) -> Iterator[Trouble]:
    if not flag_at(job.spec, "shutdownAfterJobFinishes"):
        said = "Kueue takes no job whose cluster would go on holding what the queue has"
        yield Trouble("spec.shutdownAfterJobFinishes", said, "set it to true")
    if table_at(job.spec, "clusterSelector"):
        said = "Kueue admits no job on a cluster that is there already"
        yield Trouble("spec.clusterSelector", said, "give rayClusterSpec, or label that cluster")


def _yunikorn_gang(resource: RayResource) -> Iterator[Trouble]:
    if GANG_LABEL not in table_at(resource.document.value, "metadata", "labels"):
        return
    for group in resource.workers:
        if not number_at(group.value, "minReplicas"):
            said = (
                f"YuniKorn makes no gang where a group may be empty, and {group.name} starts with no worker"
            )
            yield Trouble(f"{group.path}.minReplicas", said, f"set 1 or more, or remove {GANG_LABEL}")


QUEUE_RULES: dict[str, Rule] = {"queue-kueue": _kueue, "queue-yunikorn-gang": _yunikorn_gang}
"""Sources: Kueue's webhooks of RayJob and RayCluster; YuniKorn's reading of task groups, with KubeRay's."""
