"""`training.dataset` → its examples: tables with the published columns, in any format that the input knows.

Needs neither ray nor torch, so that a wrong dataset is refused before anything is started. Rows that
cannot be used are counted by reason; no message holds a cell.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from asclepius_ray.artifacts import MANIFEST_NAME
from asclepius_ray.errors import InputError
from asclepius_ray.records import Example, article_of
from asclepius_ray.tables.cells import integer_of, is_unicode, key_of, show_names, text_of
from asclepius_ray.tables.files import Table, content_sha256, find_tables
from asclepius_ray.tables.rows import Row, column_names, read_rows

SETTING = "training.dataset"
TEXTS = ("note", "question", "answer")
_KEYS = ("patient_uid", "patient_id")
_SPLIT_NAME = re.compile(r"(train|validation)(?:[-._].*)?")


@dataclass(frozen=True)
class Source:
    """The tables of a dataset. Without tables for validation, patients of `train` are to be held out."""

    train: tuple[Table, ...]
    validation: tuple[Table, ...] = ()
    num_left_out: int = 0
    """Tables of other splits, such as a test split: nothing reads them."""

    @property
    def identity(self) -> str:
        """A sha256 over the content of both sides; where the files lie does not count."""
        sides = [content_sha256(tables) for tables in (self.train, self.validation)]
        return hashlib.sha256(json.dumps(sides).encode()).hexdigest()


@dataclass(frozen=True)
class SourceRow:
    """One usable row; `patient` is what must not stand on both sides of a split (the article, if known)."""

    example: Example
    patient: str


def find_source(path: str) -> Source:
    """The tables below `path`, by the names of their files: `train-*` and `validation-*`, or all as one."""
    found = find_tables(path, SETTING)
    # The manifest of a dataset that this program has made ends like a table, and is none.
    tables = [table for table in found if PurePosixPath(table.path).name != MANIFEST_NAME] or found
    sides: dict[str, list[Table]] = {"train": [], "validation": []}
    for table in tables:
        if match := _SPLIT_NAME.fullmatch(PurePosixPath(table.path).name):
            sides[match[1]].append(table)
    if len(tables) == 1 or not (sides["train"] or sides["validation"]):
        return Source(tuple(tables))
    if not sides["train"]:
        raise InputError(
            f"{SETTING}: {tables[0].name} is of a folder with validation files, but without a train file; "
            "name the files to train on train-*"
        )
    num_left_out = len(tables) - len(sides["train"]) - len(sides["validation"])
    return Source(tuple(sides["train"]), tuple(sides["validation"]), num_left_out)


def check_dataset(path: str) -> None:
    """An InputError if there is no dataset at `path`, one of its tables has other columns, or no row."""
    source = find_source(path)
    for tables in (source.train, source.validation):
        for table in tables:
            _check_columns(table)
        if tables and next(read_source(tables), None) is None:
            raise InputError(f"{SETTING}: {tables[0].name} has no rows; at least one is needed")


def dataset_identity(path: str) -> str:
    """A hash of the dataset's content; an InputError where there is nothing to read."""
    return find_source(path).identity


def read_source(tables: Sequence[Table]) -> Iterator[SourceRow | str]:
    """Every row of the tables in order: its example, or the reason why it cannot be used."""
    number = 0
    for table in tables:
        names = _check_columns(table)
        for row in read_rows(table, names) if names else ():
            yield _read(row, names, number)
            number += 1


def _check_columns(table: Table) -> list[str]:
    """The columns to read; none if the table has no row."""
    found = column_names(table)
    if not found:
        return []
    keys = [name for name in _KEYS if name in found]
    missing = [name for name in TEXTS if name not in found]
    if missing or not keys:
        raise InputError(
            f"{SETTING}: {table.name} has other columns than expected: found {show_names(found)}; expected "
            "`note`, `question` and `answer`, and `patient_id` or `patient_uid`; rename them"
        )
    wanted = [*keys, *TEXTS, *(["task"] if "task" in found else [])]
    if twice := [name for name in wanted if found.count(name) > 1]:
        raise InputError(f"{SETTING}: {table.name} has more than one column {twice[0]!r}; rename all but one")
    return wanted


def _read(row: Row | None, names: list[str], number: int) -> SourceRow | str:
    if row is None:
        return "unreadable_row"
    texts = {name: text_of(row.get(name)) for name in (*TEXTS, "task")}
    key_name = names[0]
    key = key_of(row.get(key_name))
    if None in texts.values() or not is_unicode(key):
        return "unreadable_row"
    if not key:
        return f"missing_{key_name}"
    for name in TEXTS:
        if not (texts[name] or "").strip():
            return f"empty_{name}"
    example = Example(
        patient_id=integer_of(row.get("patient_id"), number),
        patient_uid=key,
        **{name: text or "" for name, text in texts.items()},
    )
    return SourceRow(example, article_of(key) if key_name == "patient_uid" else key)
