"""Reads root/dataset/validation-*.parquet, or a table of the user's → the items of the test set, in order."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

import pyarrow.parquet

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import EvaluationError, InputError
from asclepius_ray.evaluation.config import VALIDATION, EvaluationConfig
from asclepius_ray.evaluation.records import Item, ItemKind
from asclepius_ray.records import Example
from asclepius_ray.tables.cells import is_unicode, key_of, show_names, text_of
from asclepius_ray.tables.files import Table, content_sha256, find_tables
from asclepius_ray.tables.rows import Row, column_names, read_rows
from asclepius_ray.tokens.rendering import shorten_note

SETTING = "evaluation.test_set"
_COLUMNS = list(Example.__dataclass_fields__)
NO_TASK = "all questions"


@dataclass(frozen=True)
class TestSet:
    """What the models are asked.

    given: model → answers in the order of the items, None where the table has none. left_out: why rows of a
    table are no items, and how many.
    """

    name: str
    items: list[Item]
    given: Mapping[str, Sequence[str | None]] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)


def read_test_set(root: Folder, config: EvaluationConfig) -> TestSet:
    """The test set of the section; an EvaluationError if it is empty, an InputError for a table of no use."""
    if config.has_own_table:
        return _read_table(config)
    items = read_items(root.child("dataset"), config.limit)
    return TestSet(VALIDATION, items)


def check_test_set(config: EvaluationConfig) -> None:
    """An InputError for a table that is not there or lacks a column, before anything is started."""
    if config.has_own_table:
        for table in find_tables(config.test_set, SETTING):
            _check_columns(table, config)


def test_set_identity(config: EvaluationConfig) -> str:
    """A sha256 over the table's content."""
    return content_sha256(find_tables(config.test_set, SETTING))


def note_id_of(note: str) -> str:
    """The same for the same text."""
    return hashlib.sha256(note.encode(errors="surrogatepass")).hexdigest()[:16]


def read_items(dataset: Folder, limit: int) -> list[Item]:
    """The first `limit` held-out rows of a run's dataset (0 = all); an EvaluationError if there is none."""
    items: list[Item] = []
    seen: Counter[str] = Counter()
    for example in islice(_read_examples(dataset), limit or None):
        items.append(
            _item(
                _unique(example.patient_uid or str(example.patient_id), seen),
                example.task,
                example.note,
                example.question,
                example.answer,
            )
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


def _item(item_id: str, task: str, note: str, question: str, reference: str) -> Item:
    return Item(item_id, note_id_of(note), ItemKind.TEST.value, task, note, question, reference, note)


def _unique(key: str, seen: Counter[str]) -> str:
    """The key, or with a number that no other item has."""
    found = key
    while seen[found]:
        seen[key] += 1
        found = f"{key}#{seen[key]}"
    seen[found] += 1
    return found


def _read_examples(dataset: Folder) -> Iterator[Example]:
    filesystem, path = dataset.filesystem()
    for name in dataset.names():
        if not (name.startswith("validation-") and name.endswith(".parquet")):
            continue
        table = pyarrow.parquet.read_table(f"{path}/{name}", columns=_COLUMNS, filesystem=filesystem)
        for row in table.to_pylist():
            yield Example.from_row(row)


def _read_table(config: EvaluationConfig) -> TestSet:
    tables = find_tables(config.test_set, SETTING)
    wanted = [name for table in tables for name in _check_columns(table, config)]
    items: list[Item] = []
    given: dict[str, list[str | None]] = {model: [] for model in config.answer_columns}
    left_out: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    tasks: dict[str, str] = {}
    columns = list(dict.fromkeys(wanted))
    rows = ((row, table.format == "csv") for table in tables for row in read_rows(table, columns))
    for index, (row, is_csv) in enumerate(islice(rows, config.limit or None)):
        found = _item_of(row, index, config, seen)
        if isinstance(found, str):
            left_out[found] += 1
            continue
        # "Abbreviation Expansion" and "Abbreviation expansion" are one task.
        items.append(replace(found, task=tasks.setdefault(found.task.casefold(), found.task)))
        assert row is not None
        for model, column in config.answer_columns.items():
            given[model].append(_given(row.get(column), is_csv))
    if not items:
        reasons = ", ".join(f"{reason} {count}" for reason, count in left_out.items()) or "it has none"
        raise EvaluationError(f"{SETTING} has no row that can be asked ({reasons}); correct the table")
    return TestSet(_name_of(config.test_set), items, given, dict(left_out))


def _given(cell: object, is_csv: bool) -> str | None:
    """The answer in a cell, None where it holds none; CSV cannot tell no answer from an empty one."""
    text = None if cell is None else text_of(cell)
    return None if is_csv and not (text or "").strip() else text


def _item_of(row: Row | None, index: int, config: EvaluationConfig, seen: Counter[str]) -> Item | str:
    """The item of one row, or why it is none."""
    if row is None:
        return "unreadable_row"
    columns = config.columns
    texts = [text_of(row.get(name)) if name else "" for name in (columns.note, columns.question)]
    reference = text_of(row.get(columns.reference)) if columns.reference else ""
    task = key_of(row.get(columns.task)) if columns.task else NO_TASK
    note, question = texts
    if note is None or question is None or reference is None or not is_unicode(task):
        return "unreadable_row"
    if not note.strip() or not question.strip():
        return "empty_note" if not note.strip() else "empty_question"
    key = key_of(row.get(columns.item_id)) if columns.item_id else f"row {index + 1}"
    if not key or not is_unicode(key):
        return "missing_item_id"
    return _item(_unique(key, seen), task or NO_TASK, note.strip(), question.strip(), reference.strip())


def _check_columns(table: Table, config: EvaluationConfig) -> list[str]:
    """The columns to be read; an InputError names one that is not there, and those found."""
    found = column_names(table)
    mapped = {f"columns.{name}": column for name, column in config.columns.model_dump().items() if column}
    mapped |= {f"answer_columns.{model}": column for model, column in config.answer_columns.items()}
    for setting, column in mapped.items():
        if column not in found:
            raise InputError(
                f"evaluation.{setting} is the column {column!r}, but {table.name} has {show_names(found)}; "
                "correct the name"
            )
    return list(mapped.values())


def _name_of(path: str) -> str:
    return PurePosixPath(path.partition("?")[0].rstrip("/")).name
