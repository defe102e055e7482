"""The key of a drawing: which label is which model. It stays with whoever runs the study."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from asclepius_ray.errors import InputError
from asclepius_ray.evaluation.judging import label_of
from asclepius_ray.evaluation.sheets.assignment import SheetItem

KEY_NAME = "key.json"
_FORM = "asclepius key 1"
Assignment = Mapping[str, tuple[SheetItem, ...]]


@dataclass(frozen=True)
class Key:
    """sheet: the id that the sheets and the key of one drawing share. assignment: rater → items."""

    sheet: str
    seed: int
    assignment: Assignment

    def answer_behind(self, rater: str, code: str, label: str) -> tuple[str, str] | None:
        """(item id, model) of what a rater saw under a label; None if the sheet has no such place."""
        return self.answers_of(rater).get((code, label))

    def answers_of(self, rater: str) -> dict[tuple[str, str], tuple[str, str]]:
        """Every place of a rater's sheet, as (code, label) → (item id, model)."""
        return {
            (item.code, label_of(place)): (item.item_id, model)
            for item in self.assignment[rater]
            for place, model in enumerate(item.models)
        }

    def to_bytes(self) -> bytes:
        raters = {
            rater: [
                {
                    "item": item.code,
                    "item_id": item.item_id,
                    "labels": {label_of(place): model for place, model in enumerate(item.models)},
                }
                for item in items
            ]
            for rater, items in self.assignment.items()
        }
        content = {"form": _FORM, "sheet": self.sheet, "seed": self.seed, "raters": raters}
        return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def make_key(assignment: Assignment, seed: int, texts: Mapping[str, str]) -> Key:
    """A key whose id stands for all that the sheets hold; `texts`: item id → all texts of the item."""
    rows = [
        [rater, item.code, item.item_id, item.models, texts[item.item_id]]
        for rater, items in assignment.items()
        for item in items
    ]
    digest = hashlib.sha256(json.dumps(rows, ensure_ascii=False).encode()).hexdigest()
    # With a letter first and a dash: a spreadsheet would take some hexadecimal numbers for figures.
    return Key(f"s-{digest[:16]}", seed, assignment)


def read_key(content: bytes, name: str) -> Key:
    """The key of a file `name`; an InputError if it is none."""
    try:
        values: Any = json.loads(content)
        if values["form"] != _FORM:
            raise ValueError
        assignment = {
            rater: tuple(
                SheetItem(item["item"], item["item_id"], tuple(item["labels"].values())) for item in items
            )
            for rater, items in values["raters"].items()
        }
        return Key(values["sheet"], values["seed"], assignment)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f"{name} is not a key: give the {KEY_NAME} that `asclepius evaluate sheet` wrote with the sheets"
        ) from None
