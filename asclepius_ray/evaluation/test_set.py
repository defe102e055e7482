"""Reads root/dataset/validation-*.parquet → the items of the test set, in the dataset's order."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow.parquet

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import EvaluationError, InputError
from asclepius_ray.records import Example
from asclepius_ray.tokens.rendering import shorten_note

_COLUMNS = list(Example.__dataclass_fields__)


@dataclass(frozen=True)
class Item:
    """One held-out row.

    item_id: its patient_uid, made unique where a patient has several rows. asked_note: the note as the
    models are given it; shorter than `note` where that does not fit them.
    """

    item_id: str
    task: str
    note: str
    question: str
    reference: str
    asked_note: str


def read_items(dataset: Folder, limit: int) -> list[Item]:
    """The first `limit` held-out rows (0 = all); an EvaluationError if there is none."""
    items: list[Item] = []
    seen: Counter[str] = Counter()
    for example in _read_examples(dataset):
        if limit and len(items) == limit:
            break
        key = example.patient_uid or str(example.patient_id)
        seen[key] += 1
        item_id = key if seen[key] == 1 else f"{key}#{seen[key]}"
        items.append(
            Item(item_id, example.task, example.note, example.question, example.answer, example.note)
        )
    if not items:
        raise EvaluationError(
            f"{dataset.uri} has no held-out row to evaluate on; raise synthesis.validation_share "
            "or give more case reports"
        )
    return items


def fit_notes(items: Sequence[Item], tokenizer: Any, max_prompt_tokens: int) -> list[Item]:
    """The items with notes that fit, sentences left out of their middle as in training.

    Where the question alone is too long the note stays whole: the model then refuses, which is counted.
    """
    return [replace(item, asked_note=_fit_note(item, tokenizer, max_prompt_tokens)) for item in items]


def _fit_note(item: Item, tokenizer: Any, max_prompt_tokens: int) -> str:
    try:
        return shorten_note(tokenizer, item.note, item.question, max_prompt_tokens)
    except InputError:
        return item.note


def _read_examples(dataset: Folder) -> Iterator[Example]:
    filesystem, path = dataset.filesystem()
    for name in dataset.names():
        if not (name.startswith("validation-") and name.endswith(".parquet")):
            continue
        table = pyarrow.parquet.read_table(f"{path}/{name}", columns=_COLUMNS, filesystem=filesystem)
        for row in table.to_pylist():
            yield Example.from_row(row)
