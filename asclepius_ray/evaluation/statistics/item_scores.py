"""Grades of one judge → a matrix items × models of counted grades, and from it the score of each answer."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asclepius_ray.evaluation.judging import GRADES
from asclepius_ray.evaluation.records import Grade, Item, Verdict
from asclepius_ray.evaluation.statistics.notes import Floats


@dataclass(frozen=True)
class ItemScores:
    """What one judge gave to each model's answer to each item.

    counts_IMG: items × models × grades, how often each grade was given over the orders; all 0 = unjudged.
    """

    models: tuple[str, ...]
    item_ids: tuple[str, ...]
    note_ids: tuple[str, ...]
    tasks: tuple[str, ...]
    counts_IMG: NDArray[np.int64]

    @property
    def scores(self) -> Floats:
        """Items × models: mean grade over the orders, so that the place cancels; NaN = unjudged."""
        given = self.counts_IMG.sum(axis=2)
        points = self.counts_IMG @ np.array(GRADES)
        means: Floats = np.divide(points, given, out=np.full(given.shape, np.nan), where=given > 0)
        return means

    def of_task(self, task: str) -> "ItemScores":
        """The items of one task alone."""
        kept = [index for index, own in enumerate(self.tasks) if own == task]
        return ItemScores(
            models=self.models,
            item_ids=tuple(self.item_ids[index] for index in kept),
            note_ids=tuple(self.note_ids[index] for index in kept),
            tasks=(task,) * len(kept),
            counts_IMG=self.counts_IMG[kept],
        )

    def by_task(self) -> dict[str, "ItemScores"]:
        """Task → its items, the tasks in the order of their names."""
        return {task: self.of_task(task) for task in sorted(set(self.tasks))}


def item_scores(
    grades: Sequence[Grade], items: Sequence[Item], judge: str, models: Sequence[str]
) -> ItemScores:
    """The matrix of one judge. Grades of other judges, items or models are left out."""
    rows = {item.item_id: row for row, item in enumerate(items)}
    columns = {model: column for column, model in enumerate(models)}
    counts = np.zeros((len(rows), len(columns), len(GRADES)), dtype=np.int64)
    for grade in grades:
        number = judged_grade(grade)
        is_wanted = grade.judge == judge and grade.item_id in rows and grade.model in columns
        if number is not None and is_wanted:
            counts[rows[grade.item_id], columns[grade.model], GRADES.index(number)] += 1
    return ItemScores(
        models=tuple(models),
        item_ids=tuple(item.item_id for item in items),
        note_ids=tuple(item.note_id for item in items),
        tasks=tuple(item.task for item in items),
        counts_IMG=counts,
    )


def judged_grade(grade: Grade) -> int | None:
    """The number to average, None where there is none: every verdict but JUDGED is a gap, never a number."""
    return grade.grade if grade.verdict == Verdict.JUDGED else None
