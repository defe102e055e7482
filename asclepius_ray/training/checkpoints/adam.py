"""The state of Adam inside DeepSpeed, alike for torch's, DeepSpeed's fused and its CPU implementation."""

from typing import Any

import torch
from deepspeed import DeepSpeedEngine
from deepspeed.ops.adam import DeepSpeedCPUAdam, FusedAdam

from asclepius_ray.errors import TrainingError

KNOWN = (torch.optim.Adam, DeepSpeedCPUAdam, FusedAdam)


def inner_optimizer(engine: DeepSpeedEngine) -> torch.optim.Optimizer:
    """The optimizer that does the arithmetic, under what DeepSpeed wraps around it."""
    inner: torch.optim.Optimizer = getattr(engine.optimizer, "optimizer", engine.optimizer)
    return inner


def check_adam(inner: torch.optim.Optimizer) -> None:
    if not isinstance(inner, KNOWN) or any(group.get("amsgrad") for group in inner.param_groups):
        raise TrainingError(
            f"checkpoints know AdamW without amsgrad, not {type(inner).__name__}; leave the optimizer out of "
            "the table training.deepspeed"
        )


def adam_state(inner: torch.optim.Optimizer, flat: torch.Tensor) -> dict[str, Any]:
    """The state of one of the optimizer's tensors; made as its first step would where there is none yet."""
    state: dict[str, Any] = inner.state[flat]
    if "exp_avg" not in state:
        state["step"] = _first_step(inner, flat)
        state["exp_avg"] = torch.zeros_like(flat, requires_grad=False)
        state["exp_avg_sq"] = torch.zeros_like(flat, requires_grad=False)
    return state


def read_adam_step(engine: DeepSpeedEngine) -> int:
    """How many steps Adam has taken since its moments were zero."""
    # The fused one counts in the last tensor of a group alone.
    return max((int(state["step"]) for state in inner_optimizer(engine).state.values()), default=0)


def write_adam_step(engine: DeepSpeedEngine, step: int) -> None:
    for state in inner_optimizer(engine).state.values():
        # A tensor of its own for each: a shared one would count up once for every tensor that has it.
        state["step"] = torch.full_like(state["step"], step) if torch.is_tensor(state["step"]) else step


def reset_moments(engine: DeepSpeedEngine) -> None:
    """Sets the moments and step counts to zero.

    Needed before the very first step too: DeepSpeed's 16-bit optimizer of stage 0 takes an empty step when it
    is made, which would shrink the first updates by a quarter.
    """
    for state in inner_optimizer(engine).state.values():
        state["exp_avg"].zero_()
        state["exp_avg_sq"].zero_()
    write_adam_step(engine, 0)


def _first_step(inner: torch.optim.Optimizer, flat: torch.Tensor) -> torch.Tensor | int:
    if not isinstance(inner, torch.optim.Adam):
        return 0
    on_device = any(group.get("fused") or group.get("capturable") for group in inner.param_groups)
    return torch.zeros((), dtype=torch.float32, device=flat.device if on_device else "cpu")
