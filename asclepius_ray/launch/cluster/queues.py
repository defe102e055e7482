"""`[queue]` → the labels by which Kueue, Volcano and YuniKorn know what to admit. Pure."""

from asclepius_ray.launch.cluster.profile import QueueSection

KUEUE_LABEL = "kueue.x-k8s.io/queue-name"
KUEUE_ELASTIC = "kueue.x-k8s.io/elastic-job"
"""The annotation of a resource whose workers Kueue lets come and go, with a feature of it that is alpha."""
GANG_LABEL = "ray.io/gang-scheduling-enabled"


def queue_labels(queue: QueueSection | None, name: str, is_gang: bool) -> dict[str, str]:
    """The labels of a Ray resource called `name`; all pods that it starts with are then admitted together.

    `is_gang`: whether each of its groups starts with a worker. YuniKorn takes no gang with an empty group; it
    then admits pod by pod.
    """
    if queue is None:
        return {}
    if queue.system == "kueue":
        return {KUEUE_LABEL: queue.name}
    if queue.system == "volcano":
        priority = {"ray.io/priority-class-name": queue.priority_class} if queue.priority_class else {}
        return {"volcano.sh/queue-name": queue.name} | priority
    gang = {GANG_LABEL: "true"} if is_gang else {}
    return {**gang, "yunikorn.apache.org/app-id": name, "yunikorn.apache.org/queue": queue.name}


def is_kueues(queue: QueueSection | None) -> bool:
    """Whether Kueue admits the resource: it holds a job back by its own `suspend`, which no job with rules of
    deletion may be, and counts the workers once, so that no autoscaler may change their number.
    """
    return queue is not None and queue.system == "kueue"
