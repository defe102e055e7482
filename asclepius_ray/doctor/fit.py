"""Whether a training fits into the memory of the nodes, and what would make it fit. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from asclepius_ray.doctor.findings import Finding, ok, problem, warning
from asclepius_ray.doctor.memory import ModelShape, Plan, worker_memory
from asclepius_ray.doctor.nodes import Node, may_grow

GIB = 1 << 30
PROCESS_BYTES = 1 * GIB
"""Ray, torch, DeepSpeed and transformers in one worker's process, before it holds a model."""
GPU_SHARE = 0.92
"""Of a GPU's memory: the rest is CUDA's own, and lost between blocks."""
HOST_SHARE = 0.95
"""Of a node's memory: above it Ray ends the workers."""
STAGES = (0, 1, 2, 3)


def check_memory(model: ModelShape, plan: Plan, nodes: Sequence[Node]) -> Finding:
    """Holds one worker's need under each ZeRO stage against the memory that is there."""
    needs = {stage: worker_memory(model, plan.at_stage(stage)).peak / GIB for stage in STAGES}
    stages = ", ".join(f"{stage}: {need:.1f}" for stage, need in needs.items())
    chosen = needs[plan.zero_stage]
    said = f"ZeRO {plan.zero_stage} takes about {chosen:.1f} GiB a worker (GiB by stage {stages})"
    if plan.on_gpu and not any(node.gpu_memory_bytes for node in nodes):
        return warning("memory", said, "no node tells how much memory its GPUs have: compare it yourself")
    if may_grow(nodes) and sum(node.slots(plan.on_gpu) for node in nodes) < plan.workers:
        return warning("memory", said, "nodes are yet to come: compare it yourself, or look at the dry run")
    there = _describe_room(plan, nodes)
    if num_fitting(model, plan, nodes) >= plan.workers:
        return ok("memory", f"{said}; {there}")
    better = next((words for words, other in _others(plan) if _fits(model, other, nodes)), "")
    advice = f"it would fit with {better}" if better else "use more or larger nodes, or a smaller base model"
    return problem("memory", f"{said}; {there}, which is too little for {plan.workers} workers", advice)


def num_fitting(model: ModelShape, plan: Plan, nodes: Sequence[Node]) -> int:
    """How many of the plan's workers all nodes together have the memory for."""
    need = worker_memory(model, plan)
    total = 0
    for node in nodes:
        fitting = node.slots(plan.on_gpu)
        if plan.on_gpu:
            fitting = min(fitting, sum(size * GPU_SHARE >= need.peak for size in node.gpu_memory_bytes))
        in_host = PROCESS_BYTES + need.offloaded + (0.0 if plan.on_gpu else need.peak)
        total += min(fitting, int(node.free_memory_bytes * HOST_SHARE // in_host))
    return total


def _fits(model: ModelShape, plan: Plan, nodes: Sequence[Node]) -> bool:
    return num_fitting(model, plan, nodes) >= plan.workers


def _others(plan: Plan) -> Iterator[tuple[str, Plan]]:
    """Other settings, those that cost the least first; each also has what the ones before it have."""
    words: list[str] = []
    for setting, changes in (
        ("gradient_checkpointing = true", {"gradient_checkpointing": True}),
        ("zero_stage = 2", {"zero_stage": max(2, plan.zero_stage)}),
        ("zero_stage = 3", {"zero_stage": 3}),
        ("micro_batch = 1", {"micro_batch": 1}),
        ("optimizer_offload = true", {"optimizer_offload": True}),
        ("parameter_offload = true", {"parameter_offload": True}),
    ):
        changed = replace(plan, **changes)
        if changed == plan:
            continue
        plan = changed
        # A higher stage takes the place of a lower one.
        words = [word for word in words if not (word.startswith("zero") and setting.startswith("zero"))]
        words.append(setting)
        yield ", ".join(f"training.{word}" for word in words), plan


def _describe_room(plan: Plan, nodes: Sequence[Node]) -> str:
    if plan.on_gpu:
        sizes = sorted(size for node in nodes for size in node.gpu_memory_bytes)
        return f"{len(sizes)} GPUs of {sizes[0] / GIB:.0f} to {sizes[-1] / GIB:.0f} GiB"
    free = sum(node.free_memory_bytes for node in nodes) / GIB
    return f"{free:.1f} GiB are free on {len(nodes)} node(s)"
