"""What has to be compiled or installed for a training, and whether the nodes can. Pure but for the GPUs."""

from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from asclepius_ray.doctor.findings import Finding, ok, problem, warning
from asclepius_ray.doctor.nodes import Node
from asclepius_ray.training.config import TrainingConfig
from asclepius_ray.training.deepspeed_config import deepspeed_config
from asclepius_ray.training.failures import original_error
from asclepius_ray.training.machine import require_this_machine

_QUANTIZED = ("zero_quantized_weights", "zero_quantized_nontrainable_weights", "zero_quantized_gradients")
GPU_WAIT_SECONDS = 60.0


def operators_to_build(config: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """DeepSpeed's operators that this configuration builds at first use, with the programs that it takes.

    torch's own AdamW, which every training here has, needs none.
    """
    zero = config["zero_optimization"]
    if any(zero.get(name) for name in _QUANTIZED):
        return {"quantizer": ("ninja", "c++", "nvcc")}
    return {}


def check_operators(training: TrainingConfig, nodes: Sequence[Node]) -> Finding:
    """Whether every node that trains has the programs that build what is asked for."""
    needed = operators_to_build(deepspeed_config(training, training.workers.fewest))
    for operator, programs in needed.items():
        for node in nodes:
            missing = [program for program in programs if program not in node.programs]
            if node.slots(training.use_gpu) and missing:
                return problem(
                    "operators",
                    f"training.deepspeed has DeepSpeed build its operator {operator}, and {node.name} has no "
                    f"{' and no '.join(missing)}",
                    "install it there, or take the setting out",
                )
    return ok("operators", f"to be built: {', '.join(needed) or 'none'}")


def check_gpus(training: TrainingConfig, nodes: Sequence[Node]) -> Finding:
    """Whether torch on every node with GPUs can do with them what the run file asks for."""
    with_gpus = [node for node in nodes if node.num_gpus]
    task = ray.remote(num_cpus=0, num_gpus=1, max_retries=0)(require_this_machine)
    tasks = [
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.node_id, soft=False)).remote(
            training
        )
        for node in with_gpus
    ]
    try:
        ray.get(tasks, timeout=GPU_WAIT_SECONDS)
    except GetTimeoutError:
        for unfinished in tasks:
            ray.cancel(unfinished)
        return warning("gpus", f"not looked at: others have held them for {GPU_WAIT_SECONDS:.0f} s")
    except RayTaskError as error:
        return problem("gpus", str(original_error(error)))
    return ok(
        "gpus", f'{training.precision} and attention = "{training.attention}" work on {len(tasks)} node(s)'
    )
