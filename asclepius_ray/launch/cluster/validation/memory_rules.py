"""GPU memory of the profile's training nodes against the run's model and ZeRO stage. Pure."""

from collections.abc import Iterator

from asclepius_ray.doctor.findings import Level
from asclepius_ray.doctor.fit import GIB, check_memory
from asclepius_ray.doctor.memory import ModelShape
from asclepius_ray.doctor.nodes import Node, StorageLook
from asclepius_ray.doctor.plan import plan_of
from asclepius_ray.launch.cluster.profile import Profile, WorkerGroup
from asclepius_ray.launch.cluster.validation.findings import Trouble
from asclepius_ray.launch.cluster.validation.started import Started, pools_for, pools_of

GPU_MEMORY = "gpu-memory"


def gpu_memory(started: Started, profile: Profile, shape: ModelShape) -> Iterator[Trouble]:
    """Whether the run's fewest training workers fit; the arithmetic is the doctor's."""
    plan = plan_of(started.run)
    pools = pools_for("training", pools_of(started.document), plan.on_gpu)
    known = {str(role): group for role, group in profile.workers.items()}
    nodes = [
        _as_node(f"{pool.name}-{number}", known[pool.name])
        for pool in pools
        if pool.name in known
        for number in range(pool.most)
    ]
    if not nodes:
        return
    found = check_memory(shape, plan, nodes)
    if found.level is Level.PROBLEM:
        yield Trouble(pools[0].path, found.said, found.advice)


def _as_node(name: str, group: WorkerGroup) -> Node:
    """A node of the group as the doctor would find it, with nothing running yet."""
    memory = group.memory_gib * GIB
    return Node(
        node_id=name,
        name=name,
        num_cpus=group.cpus,
        num_gpus=group.gpus,
        memory_bytes=memory,
        free_memory_bytes=memory,
        gpu_memory_bytes=(group.gpu_memory_gib * GIB,) * group.gpus,
        programs=frozenset(),
        scratch_folder="",
        scratch_bytes=0,
        storage=StorageLook(sees_driver=True, failure="", bytes_per_second=0.0, free_bytes=None),
    )
