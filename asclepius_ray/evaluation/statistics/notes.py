"""Values of items → sums by note, the unit that is drawn, flipped and counted in all statistics here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class NoteSums:
    """For each note that has a value: the sum of its values and how many there are, in the notes' order."""

    sums: Floats
    sizes: Floats
    is_constant: bool

    @property
    def items(self) -> int:
        return int(self.sizes.sum())

    @property
    def notes(self) -> int:
        return len(self.sizes)

    @property
    def mean(self) -> float:
        """Mean of the items, not of the notes: a note counts as often as it has items."""
        return float(self.sums.sum() / self.sizes.sum())

    @property
    def residuals(self) -> Floats:
        """What each note's sum has above the sum that the mean of all would give it."""
        return self.sums - self.mean * self.sizes


def sum_by_note(values: Sequence[float] | Floats, notes: Sequence[str]) -> NoteSums:
    """Sums that are the same to the last bit whatever the order of the items; NaN values are left out."""
    numbers = np.asarray(values, dtype=np.float64)
    has_value = ~np.isnan(numbers)
    numbers = numbers[has_value]
    if not numbers.size:
        return NoteSums(np.zeros(0), np.zeros(0), is_constant=True)
    _, note_of = np.unique(np.asarray(notes, dtype=np.str_)[has_value], return_inverse=True)
    order = np.lexsort((numbers, note_of))  # floats add up differently in another order
    numbers, note_of = numbers[order], note_of[order]
    return NoteSums(
        sums=np.bincount(note_of, weights=numbers).astype(np.float64),
        sizes=np.bincount(note_of).astype(np.float64),
        is_constant=bool(numbers.min() == numbers.max()),
    )
