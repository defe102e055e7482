"""What a rater sees of an item: note, question and answers under labels, and no name of a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from asclepius_ray.evaluation.judging import label_of
from asclepius_ray.evaluation.records import Answer, Item
from asclepius_ray.evaluation.sheets.assignment import SheetItem

SCALE = {
    1: (
        "Unacceptable",
        "something is wrong or beside the point, or it answers what the note does not tell",
    ),
    2: ("Poor", "nothing is wrong, but something important is missing"),
    3: ("Satisfactory", "nothing is wrong, and only details are missing"),
    4: ("Excellent", "all that is asked for is there, or it rightly says that the note does not tell"),
}
"""The paper's scale in our words."""


@dataclass(frozen=True)
class ShownAnswer:
    label: str
    text: str


@dataclass(frozen=True)
class ShownItem:
    """`code` is the item's neutral name; answers stand in the order of their labels."""

    code: str
    note: str
    question: str
    answers: tuple[ShownAnswer, ...]


@dataclass(frozen=True)
class Sheet:
    """One rater's sheet. notes_are_real: None where nothing says so."""

    sheet: str
    rater: str
    notes_are_real: bool | None
    items: tuple[ShownItem, ...]


def show_items(
    items: Sequence[SheetItem], tests: Mapping[str, Item], answers: Mapping[tuple[str, str], Answer]
) -> tuple[ShownItem, ...]:
    """The items of one sheet; `tests` by item id, `answers` by (item id, model)."""
    return tuple(
        ShownItem(
            item.code,
            tests[item.item_id].note,
            tests[item.item_id].question,
            tuple(
                ShownAnswer(label_of(place), answers[item.item_id, model].text)
                for place, model in enumerate(item.models)
            ),
        )
        for item in items
    )
