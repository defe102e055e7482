"""What each node of the cluster is and can do: one look, by one small task on each."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from asclepius_ray.artifacts import Folder

PROBE_NAME = "from-the-driver"
PROBE_BYTES = 8 << 20
PROGRAMS = ("ninja", "c++", "nvcc")
"""What DeepSpeed builds its operators with."""
_GROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_MIB = 1 << 20


@dataclass(frozen=True)
class StorageLook:
    """How the run's root looks from a node."""

    sees_driver: bool
    """Whether a file that the driver wrote is there."""
    failure: str
    """Why it cannot be written, "" where it can."""
    bytes_per_second: float
    """There and back; 0 where it cannot be written."""
    free_bytes: int | None
    """None for a bucket."""


@dataclass(frozen=True)
class Node:
    """One node."""

    node_id: str
    name: str
    num_cpus: float
    num_gpus: float
    """As Ray counts them."""
    memory_bytes: int
    """What the processes of this node may take together."""
    free_memory_bytes: int
    gpu_memory_bytes: tuple[int, ...]
    """Of each GPU that the driver program knows."""
    programs: frozenset[str]
    """Of `PROGRAMS`: those that are there."""
    scratch_folder: str
    scratch_bytes: int
    """Free where temporary files go."""
    storage: StorageLook

    def slots(self, on_gpu: bool) -> int:
        """Workers that Ray would put here."""
        return int(self.num_gpus if on_gpu else self.num_cpus)


def may_grow(nodes: Sequence[Node]) -> bool:
    """Whether nodes may be yet to come: a head that takes no work leaves it to others.

    Ray itself does not tell what its autoscaler could bring.
    """
    return any(not node.num_cpus and not node.num_gpus for node in nodes)


def look_at_nodes(scratch: Folder) -> list[Node]:
    """Every node that is alive now; `scratch` is a folder below the run's root, which the driver has made."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    alive = [node for node in ray.nodes() if node["Alive"]]
    look = ray.remote(num_cpus=0, max_retries=0)(look_around)
    found = [
        look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
            scratch, node["NodeID"], node["Resources"]
        )
        for node in alive
    ]
    nodes: list[Node] = ray.get(found)
    return nodes


def look_around(scratch: Folder, node_id: str, resources: dict[str, Any]) -> Node:
    """The node on which this runs."""
    memory = psutil.virtual_memory()
    limit = min(_group_limit(), memory.total)
    temporary = tempfile.gettempdir()
    return Node(
        node_id=node_id,
        name=socket.gethostname(),
        num_cpus=float(resources.get("CPU", 0)),
        num_gpus=float(resources.get("GPU", 0)),
        memory_bytes=limit,
        free_memory_bytes=min(limit, memory.available),
        gpu_memory_bytes=_gpu_memory(),
        programs=frozenset(name for name in PROGRAMS if shutil.which(name)),
        scratch_folder=temporary,
        scratch_bytes=shutil.disk_usage(temporary).free,
        storage=_look_at_storage(scratch, node_id),
    )


def _look_at_storage(scratch: Folder, node_id: str) -> StorageLook:
    content = os.urandom(PROBE_BYTES)
    name = f"from-{node_id}"
    try:
        # Where it does not, writing would make a folder that nobody looks for.
        if not scratch.exists(PROBE_NAME):
            return StorageLook(False, "", 0.0, None)
        started = time.monotonic()
        scratch.write_bytes(name, content)
        came_back = scratch.read_bytes(name) == content
        seconds = time.monotonic() - started
        free = shutil.disk_usage(scratch.local_path).free if scratch.is_local else None
    except OSError as error:
        return StorageLook(True, error.strerror or type(error).__name__, 0.0, None)
    failure = "" if came_back else "what was written came back changed"
    return StorageLook(True, failure, 2 * PROBE_BYTES / max(seconds, 1e-6), free)


def _group_limit() -> int:
    """What this process's group may take; no limit reads as a very large number."""
    for file in _GROUP_LIMITS:
        if file.is_file() and (text := file.read_text().strip()).isdigit():
            return int(text)
    return 1 << 62


def _gpu_memory() -> tuple[int, ...]:
    """Asked of the driver's own program: to ask torch would take a GPU, or be denied one."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    asked = [program, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    answer = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=False)
    lines = answer.stdout.split() if answer.returncode == 0 else []
    return tuple(int(line) * _MIB for line in lines if line.isdigit())
