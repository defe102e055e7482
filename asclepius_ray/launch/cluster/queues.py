"""`[queue]` → the labels by which Kueue, Volcano and YuniKorn know what to admit. Pure."""

from asclepius_ray.launch.cluster.profile import QueueSection


def queue_labels(queue: QueueSection | None, name: str) -> dict[str, str]:
    """The labels of a Ray resource called `name`; all pods of its fewest nodes are then admitted together."""
    if queue is None:
        return {}
    if queue.system == "kueue":
        return {"kueue.x-k8s.io/queue-name": queue.name}
    if queue.system == "volcano":
        priority = {"ray.io/priority-class-name": queue.priority_class} if queue.priority_class else {}
        return {"volcano.sh/queue-name": queue.name} | priority
    return {
        "ray.io/gang-scheduling-enabled": "true",
        "yunikorn.apache.org/app-id": name,
        "yunikorn.apache.org/queue": queue.name,
    }


def is_suspended_by_queue(queue: QueueSection | None) -> bool:
    """Whether the job is held back by its own `suspend`, which no job with rules of deletion may be."""
    return queue is not None and queue.system == "kueue"
