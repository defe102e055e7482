"""Where a training is between two optimizer steps: all that the loop needs to go on, but the weights."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Best:
    """The lowest validation loss of the phase so far, and the step that it belongs to."""

    phase: int
    total_steps: int
    validation_loss: float


@dataclass
class LoopState:
    """The next step to take, and every metric line so far."""

    phase: int = 0
    step: int = 0
    """Steps done in this phase."""
    total_steps: int = 0
    """Steps done over all phases."""
    best: Best | None = None
    history: list[dict[str, Any]] = field(default_factory=list)

    def note_validation(self, loss: float | None) -> None:
        """Remembers this step as the best one if its loss is the lowest of the phase."""
        if loss is None:
            return
        if self.best is None or self.best.phase != self.phase or loss < self.best.validation_loss:
            self.best = Best(self.phase, self.total_steps, loss)

    def to_json(self) -> dict[str, Any]:
        """Plain values of this moment; later steps do not change them."""
        best = asdict(self.best) if self.best else None
        # A metric line is never changed once it is recorded: the list alone is copied.
        return {**vars(self), "best": best, "history": list(self.history)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "LoopState":
        best = values["best"]
        return cls(**{**values, "best": Best(**best) if best else None})
