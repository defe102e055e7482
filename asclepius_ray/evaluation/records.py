"""What an evaluation keeps: its items, the models' answers and the judges' grades, one table of each.

The tables lie in root/evaluation; everything behind the asking (scores, sheets, the page) reads them alone.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet

from asclepius_ray.artifacts import Folder

ITEMS_NAME, ANSWERS_NAME, GRADES_NAME = "items.parquet", "answers.parquet", "grades.parquet"
Record = TypeVar("Record", "Item", "Answer", "Grade")


class ItemKind(StrEnum):
    """What an item asks for."""

    TEST = "test"
    UNANSWERABLE = "unanswerable"
    """A note with the question of another one: to decline is right."""


class Verdict(StrEnum):
    """How the grading of one answer by one judge in one order ended."""

    JUDGED = "judged"
    ANSWER_FAILED = "answer_failed"
    """Of the answers that were to be graded together at least one did not come."""
    JUDGE_UNREADABLE = "judge_unreadable"
    """The judge's replies held no grades that can be read."""
    JUDGE_FAILED = "judge_failed"
    """The judge gave no reply."""


@dataclass(frozen=True)
class Item:
    """One note with one question.

    item_id: unique. note_id: the same for all items of one note, as statistics are clustered by note.
    reference: the right answer, "" where none is known. asked_note: the note as the models are given it,
    shorter than `note` where that does not fit them.
    """

    item_id: str
    note_id: str
    kind: str
    task: str
    note: str
    question: str
    reference: str
    asked_note: str


@dataclass(frozen=True)
class Answer:
    """One model's answer to one item; `failure` is the reason code of one that did not come, else ""."""

    item_id: str
    model: str
    text: str
    finish_reason: str
    failure: str
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True)
class Grade:
    """What one judge said of one answer in one order.

    order: the number of the order, from 0. place: where among the answers it stood, from 0. grade: 1-4, None
    where the verdict is not JUDGED. reason: the judge's words where reasons were asked for, else "".
    """

    item_id: str
    model: str
    judge: str
    order: int
    place: int
    grade: int | None
    verdict: str
    reason: str = ""


_TYPES = {"str": pa.string(), "int": pa.int64(), "int | None": pa.int64()}


def write_records(folder: Folder, name: str, records: Sequence[Record], kind: type[Record]) -> None:
    """Writes one table; an empty one keeps its columns."""
    rows = [asdict(record) for record in records]
    schema = _schema(kind)
    with folder.open_output(name) as stream:
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows, schema=schema), stream)


def read_records(folder: Folder, name: str, kind: type[Record]) -> list[Record]:
    """The records of one table, in its order."""
    filesystem, path = folder.filesystem()
    table = pyarrow.parquet.read_table(f"{path}/{name}", filesystem=filesystem)
    return [kind(**row) for row in table.to_pylist()]


def _schema(kind: type[Any]) -> pa.Schema:
    return pa.schema([(field.name, _TYPES[_name_of(field.type)]) for field in fields(kind)])


def _name_of(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
