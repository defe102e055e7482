"""The synthesis itself, on Ray as the command starts it, or on a cluster of several nodes."""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from ray.cluster_utils import Cluster

from asclepius_ray.artifacts import Folder
from asclepius_ray.chat.config import OFFLINE_MODEL
from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.progress import Progress
from asclepius_ray.ray_session import ray_session
from asclepius_ray.synthesis.config import InputConfig, SynthesisConfig
from asclepius_ray.synthesis.stage import Order, synthesize

CPUS_PER_NODE = 4


@contextmanager
def cluster_of(num_nodes: int) -> Iterator[str]:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": CPUS_PER_NODE})
    for _ in range(num_nodes - 1):
        cluster.add_node(num_cpus=CPUS_PER_NODE)
    try:
        yield cluster.address
    finally:
        cluster.shutdown()


def run(settings: dict[str, Any]) -> dict[str, Any]:
    endpoint = Endpoint(settings["base_url"], OFFLINE_MODEL, is_offline=True, **settings["endpoint"])
    order = Order(
        InputConfig(path=settings["reports"]),
        SynthesisConfig(workers=settings["workers"], **settings.get("synthesis", {})),
        endpoint,
        0,
        {"seed": 0},
    )
    with ExitStack() as stack:
        if settings["nodes"] > 1:
            os.environ["RAY_ADDRESS"] = stack.enter_context(cluster_of(settings["nodes"]))
        progress = stack.enter_context(Progress())
        stack.enter_context(ray_session(progress))
        begin = time.monotonic()
        manifest = synthesize(Folder(f"{settings['folder']}/root"), order, progress)
        end = time.monotonic()
    counts = manifest.counts
    num_lost = counts["input"] - counts["ok"] - sum(counts["rejected"].values())
    return {"begin": begin, "end": end, "num_lost": num_lost, "counts": counts}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run(json.loads(sys.argv[1]))) + "\n")
