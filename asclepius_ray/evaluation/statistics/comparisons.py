"""Scores of the same items → which models differ: paired differences, p values of all pairs, wins, losses.

The p value is that of a sign-flip test on the notes. If two models are alike, swapping their names within a
note changes nothing but the sign of the note's summed difference, so every pattern of signs was as likely
as the one seen: the test is exact for any number of notes, however the grades are spread and however much the
items of a note resemble each other. A bootstrap-t is that only for many notes. As the squared sums stay
the same under every flip, ranking the sums is ranking their t statistics: for many notes the test also holds
where means agree and shapes do not.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from statsmodels.stats.multitest import multipletests

from asclepius_ray.errors import EvaluationError
from asclepius_ray.evaluation.judging import GRADES
from asclepius_ray.evaluation.statistics.intervals import interval_of_mean
from asclepius_ray.evaluation.statistics.item_scores import ItemScores
from asclepius_ray.evaluation.statistics.notes import Floats, sum_by_note

FLIPS = 10_000
MOST_NOTES_FOR_ALL_PATTERNS = 15
WIDEST_DIFFERENCE = float(GRADES[-1] - GRADES[0])
_SIGNS_AT_A_TIME = 200_000  # what fits into a processor's cache
_SAME = 1e-9


@dataclass(frozen=True)
class Comparison:
    """Model a minus model b on the items that were judged for both.

    n, notes: those items and their notes. low, high: 95 %, None for fewer than two notes. p_adjusted: by
    Holm, over all pairs of its table. Without a common item there is no figure at all.
    """

    a: str
    b: str
    n: int
    notes: int
    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    p_adjusted: float | None

    def to_json(self) -> dict[str, Any]:
        return {
            "a": self.a,
            "b": self.b,
            "n": self.n,
            "notes": self.notes,
            "difference": self.difference,
            "low": self.low,
            "high": self.high,
            "p": self.p,
            "p_adjusted": self.p_adjusted,
        }


@dataclass(frozen=True)
class Wins:
    """On how many items a model's score is above, equal to and below another's."""

    win: int
    tie: int
    loss: int

    def to_json(self) -> dict[str, Any]:
        return {"win": self.win, "tie": self.tie, "loss": self.loss}


def compare_pairs(scores: ItemScores, seed: int) -> list[Comparison]:
    """Every pair of models once, in their order, with p values adjusted over these pairs."""
    pairs = [
        _compare(scores, first, second, seed) for first, second in combinations(range(len(scores.models)), 2)
    ]
    tested = [pair.p for pair in pairs if pair.p is not None]
    adjusted = iter(adjust_by_holm(tested))
    return [pair if pair.p is None else replace(pair, p_adjusted=next(adjusted)) for pair in pairs]


def count_wins(scores: ItemScores, against: str) -> dict[str, Wins]:
    """Each other model against the chosen one, on the items that were judged for both.

    EvaluationError: the chosen model is not among those that were scored.
    """
    if against not in scores.models:
        raise EvaluationError(
            f"no model {against!r} to compare with; choose one of {', '.join(scores.models)}"
        )
    chosen = scores.scores[:, scores.models.index(against)]
    return {
        model: _wins(scores.scores[:, column] - chosen)
        for column, model in enumerate(scores.models)
        if model != against
    }


def adjust_by_holm(p_values: Sequence[float]) -> list[float]:
    """The p values after Holm's step-down adjustment, in their order: the whole table risks 5 %, not each."""
    if not p_values:
        return []
    return [float(p) for p in multipletests(p_values, method="holm")[1]]


def sign_flip_p(note_sums: Floats, seed: int) -> float:
    """How often a sum at least as far from 0 comes about when each note's sign is tossed; two-sided, never 0.

    Over all patterns of up to 15 notes that differ, else over FLIPS of them, the one seen and drawn ones.
    """
    moving = note_sums[np.abs(note_sums) > _SAME]
    seen = abs(float(moving.sum())) - _SAME * float(np.abs(moving).sum())
    if len(moving) <= MOST_NOTES_FOR_ALL_PATTERNS:
        patterns = (np.arange(2 ** len(moving))[:, None] >> np.arange(len(moving))) & 1
        return float(np.mean(np.abs(_flip(patterns, moving)) >= seen))
    rng = np.random.default_rng(seed)
    as_far = 1
    rows_at_a_time = max(1, _SIGNS_AT_A_TIME // len(moving))
    for start in range(1, FLIPS, rows_at_a_time):
        tossed = rng.integers(0, 2, size=(min(rows_at_a_time, FLIPS - start), len(moving)), dtype=np.int8)
        as_far += int(np.sum(np.abs(_flip(tossed, moving)) >= seen))
    return as_far / FLIPS


def _flip(patterns: np.ndarray[Any, Any], sums: Floats) -> Floats:
    """The total under each pattern: what has a 1 counts, what has a 0 counts against."""
    total: Floats = 2 * (patterns.astype(np.float64) @ sums) - sums.sum()
    return total


def _compare(scores: ItemScores, first: int, second: int, seed: int) -> Comparison:
    differences = scores.scores[:, first] - scores.scores[:, second]  # NaN unless both were judged
    sums = sum_by_note(differences, scores.note_ids)
    interval = interval_of_mean(
        differences, scores.note_ids, seed, bounds=(-WIDEST_DIFFERENCE, WIDEST_DIFFERENCE)
    )
    p = sign_flip_p(sums.sums, seed) if sums.items else None
    return Comparison(
        a=scores.models[first],
        b=scores.models[second],
        n=interval.n,
        notes=sums.notes,
        difference=interval.value,
        low=interval.low,
        high=interval.high,
        p=p,
        p_adjusted=None,
    )


def _wins(differences: Floats) -> Wins:
    return Wins(
        win=int(np.sum(differences > _SAME)),
        tie=int(np.sum(np.abs(differences) <= _SAME)),
        loss=int(np.sum(differences < -_SAME)),
    )
