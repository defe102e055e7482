"""Values of items → their mean with a 95 % interval that holds when items of one note resemble each other.

The bootstrap draws notes, never single items. Of the methods tried on simulated grades (equal and unequal
notes, grades in the middle of the scale and crowded at its top) the plain percentile and BCa cover too little
with 20 notes (90-93 %), the studentized one is wide without limit when most grades are the same. Taken is BCa
(Efron 1987) at levels widened for few notes as Hesterberg does for the percentile (The American
Statistician 69:371, 2015): 93-96 % with 20-60 notes, and no limit outside of what was observed. It cannot go
beyond the notes it has, which is too little below about eight of them; there a t interval takes its place
(90-94 % with 3-7 notes).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from asclepius_ray.evaluation.statistics.notes import Floats, NoteSums, sum_by_note

CONFIDENCE = 0.95
RESAMPLES = 4000
NOTES_FOR_BCA = 8
_DRAWS_AT_A_TIME = 500_000  # 4 MB of numbers, however many notes there are
_SAME = 1e-9

Bounds: TypeAlias = tuple[float, float]


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval.

    n: the items behind it. low, high: None for fewer than two notes. All None where there are no items.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int

    def to_json(self) -> dict[str, Any]:
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n}


def interval_of_mean(
    values: Sequence[float] | Floats, notes: Sequence[str], seed: int, bounds: Bounds | None = None
) -> Interval:
    """The mean of the items' values with its interval over notes; NaN values are left out.

    A function of the set of (value, note) and the seed, not of their order. bounds: the least and the
    greatest mean there can be; a t interval of few notes is cut there, which takes nothing from its coverage.
    """
    sums = sum_by_note(values, notes)
    if not sums.items:
        return Interval(None, None, None, 0)
    if sums.notes < 2:
        return Interval(sums.mean, None, None, sums.items)
    if sums.is_constant:
        return Interval(sums.mean, sums.mean, sums.mean, sums.items)
    errors = _resampled_errors(sums, seed)
    low, high = _t_limits(errors, sums) if sums.notes < NOTES_FOR_BCA else _bca_limits(errors, sums)
    least, greatest = bounds or (-np.inf, np.inf)
    return Interval(sums.mean, float(max(low, least)), float(min(high, greatest)), sums.items)


def _resampled_errors(sums: NoteSums, seed: int) -> Floats:
    """Mean of each resample minus the mean of the sample, sorted.

    A mean is a ratio, values by items, as a resample has not always the same number of items.
    """
    residuals_and_sizes = np.stack([sums.residuals, sums.sizes], axis=1)
    drawn = _times_each_note_is_drawn(sums.notes, seed)
    rows = _rows_at_a_time(sums.notes)
    totals = np.concatenate(
        [
            drawn[start : start + rows].astype(np.float64) @ residuals_and_sizes
            for start in range(0, RESAMPLES, rows)
        ]
    )
    return np.sort(totals[:, 0] / totals[:, 1])


@lru_cache(maxsize=1)  # the models of one table have the same notes, and drawing costs more than adding up
def _times_each_note_is_drawn(num_notes: int, seed: int) -> NDArray[np.uint8]:
    """Resamples × notes. One note among many is never drawn 256 times, and one of few cannot be."""
    rng = np.random.default_rng(seed)
    counts = np.empty((RESAMPLES, num_notes), dtype=np.uint8)
    for start in range(0, RESAMPLES, _rows_at_a_time(num_notes)):
        rows = counts[start : start + _rows_at_a_time(num_notes)]
        drawn = rng.integers(0, num_notes, size=rows.shape)
        drawn += np.arange(len(rows))[:, None] * num_notes  # one range of numbers for each resample
        rows[:] = np.bincount(drawn.ravel(), minlength=rows.size).reshape(rows.shape)
    return counts


def _rows_at_a_time(num_notes: int) -> int:
    return max(1, _DRAWS_AT_A_TIME // num_notes)


def _t_limits(errors: Floats, sums: NoteSums) -> tuple[float, float]:
    """The bootstrap's standard error, made up for the notes' own mean, times t's quantile."""
    half = float(errors.std()) * _wide_quantile(sums.notes)
    return sums.mean - half, sums.mean + half


def _bca_limits(errors: Floats, sums: NoteSums) -> tuple[float, float]:
    """BCa's limits at the widened level: corrected for the bias and the skewness of the resampled means."""
    tie = _SAME * float(np.abs(errors).max())
    below = (np.mean(errors < -tie) + np.mean(errors <= tie)) / 2  # half of what equals the mean
    bias = stats.norm.ppf(np.clip(below, 1 / RESAMPLES, 1 - 1 / RESAMPLES))
    # The jackknife: what the mean loses with each note. The skewness of it (BCa's acceleration) is never more
    # than 1/6, and `shifted` stays below 6, so the denominator stays above 0.
    lost = sums.residuals / (sums.sizes.sum() - sums.sizes)
    lost = lost - lost.mean()
    spread = float((lost**2).sum()) ** 1.5
    skewness = float((lost**3).sum()) / (6 * spread) if spread else 0.0
    shifted = bias + np.array([-1.0, 1.0]) * _wide_quantile(sums.notes)
    levels = stats.norm.cdf(bias + shifted / (1 - skewness * shifted))
    low, high = sums.mean + np.quantile(errors, levels, method="weibull")
    return float(low), float(high)


def _wide_quantile(num_notes: int) -> float:
    """t's quantile times √(n/(n-1)): resamples of few notes vary too little, and nobody knows by how much."""
    t = stats.t.ppf((1 + CONFIDENCE) / 2, num_notes - 1)
    return float(t) * float(np.sqrt(num_notes / (num_notes - 1)))
