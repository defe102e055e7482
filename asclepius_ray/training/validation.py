"""When the held-out rows are read, and when a phase ends early: after so many validations without progress.

Pure. The loss of a validation is a sum over all workers, so that each of them comes to the same decision;
what is remembered between two validations lies in the state of the loop, and so survives a restart.
"""

import math
from dataclasses import dataclass

LARGEST_EXPONENT = 700.0


@dataclass(frozen=True)
class Patience:
    """What the validations of a phase have shown so far."""

    loss_to_beat: float | None = None
    """The loss of the last validation that was an improvement; None before the first one."""
    without_improvement: int = 0
    """Validations since then."""

    def after(self, loss: float | None, min_delta: float) -> "Patience":
        """What is known after one more validation; a loss of None (no row is held out) tells nothing."""
        if loss is None:
            return self
        if self.loss_to_beat is None or is_improvement(self.loss_to_beat, loss, min_delta):
            return Patience(loss, 0)
        return Patience(self.loss_to_beat, self.without_improvement + 1)

    def is_exhausted(self, most: int) -> bool:
        """Whether the phase ends; `most` 0 never ends one."""
        return 0 < most <= self.without_improvement


def is_improvement(loss_to_beat: float, loss: float, min_delta: float) -> bool:
    """Whether the loss is lower, and by at least `min_delta`."""
    return loss < loss_to_beat and loss_to_beat - loss >= min_delta


def is_validation_due(step: int, total_steps: int, every: int) -> bool:
    """Whether the held-out rows are read after a phase's step (from 1); after the last they always are."""
    return every > 0 and step % every == 0 and step < total_steps


def perplexity(loss: float | None) -> float | None:
    """Between how many equally likely tokens the model chooses; None if there is no loss, or far too much."""
    return math.exp(loss) if loss is not None and loss < LARGEST_EXPONENT else None
