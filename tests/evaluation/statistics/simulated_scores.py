"""Scores as a judge gives them, drawn from a known truth: grades 1-4, several items to a note."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

MOST_ITEMS = 6


@dataclass(frozen=True)
class Study:
    """How grades come about: the level, how far a note moves all of its items, how far an item moves."""

    level: float
    note_spread: float = 0.7
    item_spread: float = 0.6

    def draw(self, num_notes: int, rng: np.random.Generator) -> tuple[NDArray[np.float64], list[str]]:
        """The items' grades and the note of each; a note has 1 to MOST_ITEMS items."""
        notes = draw_notes(num_notes, rng)
        moved = self.level + rng.normal(0, self.note_spread, num_notes)[notes]
        return np.clip(np.rint(moved + rng.normal(0, self.item_spread, len(notes))), 1, 4), names_of(notes)

    def true_mean(self) -> float:
        """The mean grade that endlessly many notes would have, by the law that the grades are drawn from."""
        spread = float(np.hypot(self.note_spread, self.item_spread))
        return 1 + sum(float(norm.sf((cut - self.level) / spread)) for cut in (1.5, 2.5, 3.5))


def draw_notes(num_notes: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """For each item the number of its note."""
    return np.repeat(np.arange(num_notes), rng.integers(1, MOST_ITEMS + 1, num_notes))


def names_of(notes: NDArray[np.int64]) -> list[str]:
    return [f"note-{note}" for note in notes]
