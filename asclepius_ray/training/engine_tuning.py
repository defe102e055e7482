"""What DeepSpeed does without need, or throws away, is set right on the engine itself.

Its own functions are replaced, so its exact version is pinned, and a test holds what they must do.
"""

import torch
import torch.distributed
from deepspeed import DeepSpeedEngine


def tune_engine(engine: DeepSpeedEngine) -> None:
    """Without ZeRO and in 32 bits: keeps the norm of the gradient, and spares a lone worker the reduction."""
    if engine.zero_optimization() or engine.bfloat16_enabled():
        return

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
    """The norm of the last step's gradient over all workers, before it was clipped; None if not known."""
    norm = engine.get_global_grad_norm()
    return None if norm is None else float(norm)
