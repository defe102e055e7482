"""What was bought, step by step: kept up to date with every entry. Pure."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from asclepius_ray.chat.exchange import Entry, Failure
from asclepius_ray.chat.journal.segment import IS_COMPLETION, IS_MARK


@dataclass(frozen=True)
class StepTotals:
    """Sums over all entries of one step, those included that were bought anew since: they were paid."""

    completions: int = 0
    failures: int = 0
    attempts: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = 0.0
    """None as soon as the price of one entry is not known."""
    known_usd: float = 0.0
    """Of the entries whose price is known: what a budget counts."""
    unsettled_usd: float = 0.0


def add_entry(totals: dict[str, StepTotals], entry: Entry) -> None:
    before = totals.get(entry.step, StepTotals())
    is_failure = isinstance(entry.answer, Failure)
    known = before.cost_usd is not None and entry.cost_usd is not None
    totals[entry.step] = replace(
        before,
        completions=before.completions + (not is_failure),
        failures=before.failures + is_failure,
        attempts=before.attempts + entry.answer.attempts,
        prompt_tokens=before.prompt_tokens + entry.answer.prompt_tokens,
        completion_tokens=before.completion_tokens + entry.answer.completion_tokens,
        cost_usd=(before.cost_usd or 0.0) + (entry.cost_usd or 0.0) if known else None,
        known_usd=before.known_usd + (entry.cost_usd or 0.0),
        unsettled_usd=before.unsettled_usd + entry.unsettled_usd,
    )


def totals_of(index: "np.ndarray[Any, Any]") -> dict[str, StepTotals]:
    """The sums over an index; each entry stands in it once."""
    entries = index[index["kind"] != IS_MARK]
    found: dict[str, StepTotals] = {}
    for step in np.unique(entries["step"]):
        rows = entries[entries["step"] == step]
        num_completions = int((rows["kind"] == IS_COMPLETION).sum())
        cost = float(rows["cost_usd"].sum())
        found[step.decode()] = StepTotals(
            completions=num_completions,
            failures=len(rows) - num_completions,
            attempts=int(rows["attempts"].sum()),
            prompt_tokens=int(rows["prompt_tokens"].sum(dtype=np.uint64)),
            completion_tokens=int(rows["completion_tokens"].sum(dtype=np.uint64)),
            cost_usd=None if np.isnan(cost) else cost,
            known_usd=float(np.nansum(rows["cost_usd"])),
            unsettled_usd=float(rows["unsettled_usd"].sum()),
        )
    return found
