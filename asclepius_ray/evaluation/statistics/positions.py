"""Grades of one judge → how much the place of an answer in the prompt counted."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from asclepius_ray.evaluation.records import Grade, Item
from asclepius_ray.evaluation.statistics.comparisons import WIDEST_DIFFERENCE
from asclepius_ray.evaluation.statistics.intervals import Interval, interval_of_mean
from asclepius_ray.evaluation.statistics.item_scores import judged_grade


@dataclass(frozen=True)
class Place:
    """Mean grade of all answers that stood in one place, from 0."""

    place: int
    mean: float
    grades: int


@dataclass(frozen=True)
class Positions:
    """What place did to the grades of one judge.

    first_minus_last: over the items, with an interval over notes; empty where answers were judged one by one.
    orders_agree: share of answers with the same grade in all orders; None where none has two grades.
    """

    places: tuple[Place, ...]
    first_minus_last: Interval
    orders_agree: float | None

    def to_json(self) -> dict[str, Any]:
        places = [{"place": place.place, "mean": place.mean, "grades": place.grades} for place in self.places]
        return {
            "places": places,
            "first_minus_last": self.first_minus_last.to_json(),
            "orders_agree": self.orders_agree,
        }


@dataclass(frozen=True)
class _Given:
    """A grade that there is."""

    item_id: str
    model: str
    order: int
    place: int
    number: int


def measure_positions(grades: Sequence[Grade], items: Sequence[Item], judge: str, seed: int) -> Positions:
    """The figures of one judge over the items; what has no grade is in none of them."""
    note_of = {item.item_id: item.note_id for item in items}
    given = [
        _Given(grade.item_id, grade.model, grade.order, grade.place, number)
        for grade in grades
        if grade.judge == judge and grade.item_id in note_of and (number := judged_grade(grade)) is not None
    ]
    differences = _first_minus_last(given)
    return Positions(
        places=_mean_by_place(given),
        first_minus_last=interval_of_mean(
            list(differences.values()),
            [note_of[item_id] for item_id in differences],
            seed,
            bounds=(-WIDEST_DIFFERENCE, WIDEST_DIFFERENCE),
        ),
        orders_agree=_share_of_agreeing_orders(given),
    )


def _mean_by_place(given: Sequence[_Given]) -> tuple[Place, ...]:
    by_place: defaultdict[int, list[int]] = defaultdict(list)
    for grade in given:
        by_place[grade.place].append(grade.number)
    return tuple(
        Place(place, sum(numbers) / len(numbers), len(numbers)) for place, numbers in sorted(by_place.items())
    )


def _first_minus_last(given: Sequence[_Given]) -> dict[str, float]:
    """Item → the grade in the first place minus that in the last, mean of the orders that have both."""
    last = max((grade.place for grade in given), default=0)
    if last == 0:
        return {}
    ends: defaultdict[tuple[str, int], dict[int, int]] = defaultdict(dict)
    for grade in given:
        if grade.place in (0, last):
            ends[grade.item_id, grade.order][grade.place] = grade.number
    by_item: defaultdict[str, list[int]] = defaultdict(list)
    for (item_id, _), numbers in ends.items():
        if len(numbers) == 2:
            by_item[item_id].append(numbers[0] - numbers[last])
    return {item_id: sum(differences) / len(differences) for item_id, differences in by_item.items()}


def _share_of_agreeing_orders(given: Sequence[_Given]) -> float | None:
    by_answer: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for grade in given:
        by_answer[grade.item_id, grade.model].append(grade.number)
    repeated = [numbers for numbers in by_answer.values() if len(numbers) > 1]
    return sum(len(set(numbers)) == 1 for numbers in repeated) / len(repeated) if repeated else None
