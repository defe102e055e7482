"""The account of a synthesis: every row of the input in exactly one counted state."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from asclepius_ray.chat.config import PriceConfig
from asclepius_ray.chat.prices import cost_usd
from asclepius_ray.errors import SynthesisError
from asclepius_ray.records import Rejection
from asclepius_ray.synthesis.steps import STEPS
from asclepius_ray.synthesis.walk import RowResult, StepUsage


class Ledger:
    """Counts rows, tasks, articles and tokens as results come in."""

    def __init__(self, num_input: int, unreadable: Iterable[Rejection]) -> None:
        self.num_input = num_input
        self.num_ok = 0
        self.rejections: list[Rejection] = []
        self.is_usage_estimated = False
        self._models: set[str] = set()
        self._tasks: Counter[str] = Counter()
        self._usage: dict[str, StepUsage] = {}
        self._reasons: dict[str, Counter[str]] = {"rejected": Counter(), "failed": Counter()}
        for rejection in unreadable:
            self._reject(rejection)

    def add(self, result: RowResult) -> None:
        for step, used in result.usage.items():
            self._usage[step] = self._usage.get(step, StepUsage()) + used
        self.is_usage_estimated |= result.is_usage_estimated
        self._models.update(result.models)
        if result.state == "ok":
            self.num_ok += 1
            self._tasks[result.task] += 1
        else:
            self._reject(result.rejection)

    def _reject(self, rejection: Rejection) -> None:
        self.rejections.append(rejection)
        self._reasons[rejection.state][rejection.reason] += 1

    @property
    def tasks(self) -> dict[str, int]:
        """Task → ok rows, by name."""
        return dict(sorted(self._tasks.items()))

    @property
    def usage(self) -> dict[str, dict[str, int]]:
        return {step: asdict(self._usage[step]) for step in STEPS if step in self._usage}

    @property
    def models(self) -> list[str]:
        """What the replies call the models that wrote them, by name."""
        return sorted(self._models - {""})

    @property
    def num_tokens(self) -> int:
        return sum(used.prompt_tokens + used.completion_tokens for used in self._usage.values())

    def cost_usd(self, price: PriceConfig | None) -> float | None:
        """What the teacher's tokens cost; None where no price is known."""
        used = sum(self._usage.values(), StepUsage())
        return cost_usd(price, used.prompt_tokens, used.completion_tokens)

    def by_reason(self, state: str) -> dict[str, int]:
        """Reason → rows that ended in `state`, by name."""
        return dict(sorted(self._reasons[state].items()))

    def counts(self) -> dict[str, Any]:
        return {
            "input": self.num_input,
            "ok": self.num_ok,
            "rejected": self.by_reason("rejected"),
            "failed": self.by_reason("failed"),
        }

    def check(self, max_failed_share: float) -> None:
        """Raises a SynthesisError where a row is missing, too many have failed or none is left."""
        rejected, failed = self.by_reason("rejected"), self.by_reason("failed")
        num_rejected, num_failed = sum(rejected.values()), sum(failed.values())
        if self.num_input != self.num_ok + num_rejected + num_failed:
            raise SynthesisError(
                f"the rows do not add up: {self.num_input} in the input, but {self.num_ok} ok + "
                f"{num_rejected} rejected + {num_failed} failed; nothing was kept, run it again"
            )
        if num_failed > max_failed_share * self.num_input:
            raise SynthesisError(
                f"{num_failed} of {self.num_input} rows failed ({_list_counts(failed)}), more than the share "
                f"synthesis.max_failed_share = {max_failed_share:g} allows; look at the teacher, or raise it"
            )
        if self.num_ok == 0:
            raise SynthesisError(
                f"none of the {self.num_input} rows came through (rejected: {_list_counts(rejected)}; "
                f"failed: {_list_counts(failed)}); look at the input and at what the teacher answers"
            )


def _list_counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{reason}: {number}" for reason, number in counts.items()) or "none"
