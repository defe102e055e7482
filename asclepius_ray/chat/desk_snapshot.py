"""The desk's figures at one moment: numbers and reasons, never a text of the run."""

from collections.abc import Mapping
from dataclasses import dataclass

from asclepius_ray.chat.desk_messages import Trouble
from asclepius_ray.chat.journal.totals import StepTotals


@dataclass(frozen=True)
class DeskSnapshot:
    """What was bought so far, over all runs on this journal, and what goes on now."""

    steps: Mapping[str, StepTotals]
    unsettled_usd: float
    has_price: bool
    budget_usd: float
    num_replayed: int
    """Answers given from the journal, or from another worker's purchase."""
    num_refusals: int
    requests_per_minute: float | None
    """The present limit; None = unlimited."""
    tokens_per_minute: float | None
    num_in_flight: int
    num_permits: int
    num_waiting: int
    num_workers: int
    num_segments: int
    num_damaged_records: int
    why_waiting: str
    trouble: Trouble | None

    @property
    def num_tokens(self) -> int:
        return sum(step.prompt_tokens + step.completion_tokens for step in self.steps.values())

    @property
    def cost_usd(self) -> float | None:
        """Of all answers ever bought, failed ones included; None = unknown, which is not 0."""
        costs = [step.cost_usd for step in self.steps.values()]
        if not self.has_price or any(cost is None for cost in costs):
            return None
        return sum(cost for cost in costs if cost is not None)
