"""What DeepSpeed does without need, or throws away, is set right on the engine itself.

Its own functions are replaced, so its exact version is pinned, and a test holds what they must do.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed
from deepspeed import DeepSpeedEngine


def tune_engine(engine: DeepSpeedEngine) -> None:
    """Makes the norm of the gradient the same for any number of workers, and spares one the reduction."""
    if engine.zero_optimization_stage() in (1, 2):
        _sum_norm_in_64_bits(engine.optimizer)
    if not (engine.zero_optimization() or engine.bfloat16_enabled()):
        _tune_without_zero(engine)


def _sum_norm_in_64_bits(optimizer: Any) -> None:
    """DeepSpeed rounds each worker's part of the sum to 32 bits, and clips otherwise with 1 than with 2."""

    def norm(gradients: Iterable[torch.Tensor], params: object, norm_type: float = 2) -> torch.Tensor:
        parts = [one for one in gradients if not getattr(one, "_zero_padding", False)]
        squares = torch.zeros((), dtype=torch.float64, device=optimizer.device)
        for part in parts:
            squares += part.detach().double().square().sum()
        torch.distributed.all_reduce(squares, group=optimizer.dp_process_group)
        # DeepSpeed's own mark of a norm that is no number.
        return torch.where(torch.isfinite(squares), squares.sqrt(), -1.0).float()

    optimizer.get_grad_norm_direct = norm


def _tune_without_zero(engine: DeepSpeedEngine) -> None:
    """In 32 bits: keeps the norm, and spares a lone worker the reduction."""

    def clip_and_keep_norm() -> None:
        # DeepSpeed clips by a norm that it then forgets.
        parameters = [parameter for parameter in engine.module.parameters() if parameter.grad is not None]
        engine._global_grad_norm = torch.nn.utils.clip_grad_norm_(parameters, engine.gradient_clipping())

    def reduce_nothing(grads: object = None, elements_per_buffer: int = 0) -> None:
        """The mean over one worker: DeepSpeed would copy all gradients twice to multiply them by 1."""

    engine.clip_fp32_gradients = clip_and_keep_norm
    if torch.distributed.get_world_size() == 1:
        engine.buffered_allreduce_fallback = reduce_nothing


def gradient_norm(engine: DeepSpeedEngine) -> float | None:
    """The norm of the last step's gradient over all workers, before it was clipped.

    None if it is not known; infinite or NaN if the gradient is.
    """
    norm = engine.get_global_grad_norm()
    if norm is None:
        return None
    # Below 0 is DeepSpeed's own mark of a norm that is no number.
    return float(norm) if float(norm) >= 0 else math.nan
