"""How many nodes a job's cluster has, and how many of them have been told to go, as Prometheus gauges."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray.exceptions import RayError

from asclepius_ray.gauges import Figure, Gauges

LOOK_SECONDS = 5.0
LONGEST_LOOK_SECONDS = 2.0
_FIGURES = (
    Figure("nodes", "Nodes of the cluster that are alive."),
    Figure("draining_nodes", "Nodes of the cluster that have been told to go: by their cloud, or by hand."),
)


@contextmanager
def watching_nodes(run: str) -> Iterator[None]:
    """Sets `ray_asclepius_cluster_…` from a thread of its own for as long as the context lasts."""
    gauges, ended = Gauges("cluster", run, _FIGURES), threading.Event()

    def watch() -> None:
        while True:
            for name, number in _count_nodes().items():
                gauges.set(name, number)
            if ended.wait(LOOK_SECONDS):
                return

    thread = threading.Thread(target=watch, daemon=True, name="node watch")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        # A cluster that is gone does not answer; this process then ends without it.
        thread.join(LONGEST_LOOK_SECONDS)


def _count_nodes() -> dict[str, int | None]:
    """None where the cluster does not answer: the next look may find it again."""
    try:
        return {
            "nodes": sum(node["Alive"] for node in ray.nodes()),
            "draining_nodes": len(ray._private.state.state.get_draining_nodes()),
        }
    except RayError:
        return {"nodes": None, "draining_nodes": None}
