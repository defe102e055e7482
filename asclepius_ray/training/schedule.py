"""The learning rate of one step: a linear rise over the phase's warm-up, then half a cosine to 0. Pure."""

import math


def learning_rate(step: int, total_steps: int, peak: float, warmup_ratio: float) -> float:
    """The rate of `step` (from 0) of a phase of `total_steps`; no step has the rate 0."""
    warmup_steps = math.ceil(total_steps * warmup_ratio)
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))
