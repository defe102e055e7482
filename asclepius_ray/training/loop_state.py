"""Where a training is between two optimizer steps: all that the loop needs to go on, but the weights."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from asclepius_ray.errors import StageChangedError
from asclepius_ray.training.validation import Patience


@dataclass
class Best:
    """The lowest validation loss of the phase so far, and the step that it belongs to."""

    phase: int
    total_steps: int
    validation_loss: float


@dataclass
class LoopState:
    """The next step to take, and what is remembered of the steps before it."""

    phase: int = 0
    step: int = 0
    """Steps done in this phase."""
    total_steps: int = 0
    """Steps done over all phases."""
    best: Best | None = None
    metric_bytes: int = 0
    """Bytes of the metrics that are of steps before the next one; the lines themselves are in their log."""
    patience: Patience = field(default_factory=Patience)
    """What early stopping remembers of this phase."""
    store_sha256: str = ""
    """The token store that the steps are of: on another one the same step means other rows."""

    @property
    def best_step_of_phase(self) -> int | None:
        """The step of this phase's best validation so far; None before the first one."""
        return self.best.total_steps if self.best and self.best.phase == self.phase else None

    def note_validation(self, loss: float | None, min_delta: float = 0.0) -> None:
        """Remembers this step as the best one if its loss is the lowest of the phase, and what it teaches."""
        self.patience = self.patience.after(loss, min_delta)
        if loss is None:
            return
        if self.best is None or self.best.phase != self.phase or loss < self.best.validation_loss:
            self.best = Best(self.phase, self.total_steps, loss)

    def without_lost_best(self, committed: Iterable[int]) -> "LoopState":
        """The same, but for a best step whose checkpoint had to go for a better one that was then damaged."""
        is_lost = self.best is not None and self.best.total_steps not in committed
        return replace(self, best=None) if is_lost else self

    def to_json(self) -> dict[str, Any]:
        """Plain values of this moment; later steps do not change them."""
        best = asdict(self.best) if self.best else None
        return {**vars(self), "best": best, "patience": asdict(self.patience)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "LoopState":
        best = Best(**values["best"]) if values["best"] else None
        return cls(**{**values, "best": best, "patience": Patience(**values["patience"])})


def require_same_store(state: LoopState, store_sha256: str) -> None:
    """Refuses to go on from a state that was reached on another token store."""
    found = state.store_sha256
    if found != store_sha256:
        raise StageChangedError(
            f"the checkpoint was made on another token store ({found[:12]}, now it is {store_sha256[:12]}), "
            "so its position means other rows; put the old tokens/ back, or use --redo train to train anew"
        )
