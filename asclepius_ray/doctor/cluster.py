"""Whether the nodes have what the stages ask Ray and the disks for. Pure: judges what `nodes.py` has seen."""

from collections.abc import Sequence

from asclepius_ray.doctor.findings import Finding, ok, problem, warning
from asclepius_ray.doctor.fit import GIB
from asclepius_ray.doctor.memory import ModelShape, Plan, checkpoint_bytes
from asclepius_ray.doctor.nodes import Node, may_grow
from asclepius_ray.run import Run

SLOW_BYTES_PER_SECOND = 20e6


def check_resources(run: Run, nodes: Sequence[Node]) -> Finding:
    """What Ray would wait for without end, unless nodes come by themselves."""
    training, serving = run.training, run.serving
    kind = "GPU" if training.use_gpu else "CPU"
    slots = sum(node.slots(training.use_gpu) for node in nodes)
    said = f"{len(nodes)} node(s): {_total(nodes, False)} CPUs, {_total(nodes, True)} GPUs"
    fewest = training.workers.fewest
    if slots < fewest:
        return _lack(
            nodes,
            f"{said}; {fewest} training workers need a {kind} each and would wait without end",
            "lower training.workers, or start more nodes",
        )
    models = len(run.evaluation.served_models)
    if serving.use_gpu and not _total(nodes, True):
        return _lack(
            nodes,
            f"{said}; serving.use_gpu is true, and no node has a GPU",
            "set serving.use_gpu = false, or start a node with one",
        )
    each = serving.private(serving.host).replicas.fewest
    if (replicas := models * each) > _total(nodes, False):
        return _lack(
            nodes,
            f"{said}; the evaluation serves {models} models with {each} replica(s), a CPU each",
            "lower serving.replicas, or name one model in evaluation.models",
        )
    return ok("resources", f"{said}; {fewest} training workers, {replicas} replicas to evaluate")


def check_storage(uri: str, nodes: Sequence[Node], model: ModelShape | None, plan: Plan) -> Finding:
    """Whether every node sees and can write the run's root, and how fast."""
    if blind := sum(not node.storage.sees_driver for node in nodes):
        return problem(
            "storage",
            f"{uri} is a folder of this machine that {blind} of the {len(nodes)} nodes do not see",
            'use storage that all of them share, such as root = "s3://BUCKET/run"',
        )
    if failures := [node for node in nodes if node.storage.failure]:
        first = failures[0]
        return problem(
            "storage",
            f"{uri} cannot be written from {len(failures)} of the {len(nodes)} nodes ({first.name}: "
            f"{first.storage.failure})",
            "give their user the right to write there, or choose another root",
        )
    slowest = min(node.storage.bytes_per_second for node in nodes)
    said = f"{uri} is written and read by all {len(nodes)} node(s), {slowest / 1e6:,.0f} MB/s at least"
    if model is not None:
        size = checkpoint_bytes(model)
        said += f"; a checkpoint of {format_bytes(size)} takes about {size / slowest / plan.workers:,.0f} s"
    if slowest < SLOW_BYTES_PER_SECOND:
        return warning("storage", said, "that is slow: use storage nearer to the nodes, or rarer checkpoints")
    return ok("storage", said)


def check_disks(model: ModelShape, plan: Plan, keep_checkpoints: int, nodes: Sequence[Node]) -> Finding:
    """Whether checkpoints fit where they are put together, and the run fits where it is kept."""
    checkpoint, weights = checkpoint_bytes(model), plan.weight_bytes * model.parameters
    for node in nodes:
        here = min(node.slots(plan.on_gpu), plan.workers)
        needed = checkpoint * here / plan.workers + weights
        if here and node.scratch_bytes < needed:
            return problem(
                "disk",
                f"{node.scratch_folder} of {node.name} has {format_bytes(node.scratch_bytes)} free; a "
                f"checkpoint and the model are put together there, about {format_bytes(needed)}",
                "make room, or set TMPDIR to a larger disk where Ray is started",
            )
    # One more than is kept: the old one goes when the new one is whole. Base model and model besides.
    needed = (keep_checkpoints + 1) * checkpoint + 2 * weights
    free = [node.storage.free_bytes for node in nodes if node.storage.free_bytes is not None]
    if free and min(free) < needed:
        return problem(
            "disk",
            f"the run's folder has {format_bytes(min(free))} free and takes about {format_bytes(needed)}, "
            f"with {keep_checkpoints} checkpoints of {format_bytes(checkpoint)}",
            "make room, lower training.keep_checkpoints, or choose another root",
        )
    return ok("disk", f"the run takes about {format_bytes(needed)} where it is kept")


def format_bytes(number: float) -> str:
    return f"{number / GIB:,.1f} GiB" if number >= GIB else f"{number / 1e6:,.0f} MB"


def _lack(nodes: Sequence[Node], said: str, advice: str) -> Finding:
    if may_grow(nodes):
        return warning("resources", f"{said}, unless the cluster's autoscaler brings nodes", advice)
    return problem("resources", said, advice)


def _total(nodes: Sequence[Node], of_gpus: bool) -> int:
    return sum(node.slots(of_gpus) for node in nodes)
