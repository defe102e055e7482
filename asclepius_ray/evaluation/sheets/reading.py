"""Reads the files that raters give back: what a page saved, or a filled table, each checked by the key."""

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from asclepius_ray.errors import InputError
from asclepius_ray.evaluation.judging import GRADES
from asclepius_ray.evaluation.sheets.key import Key
from asclepius_ray.evaluation.sheets.table import COLUMNS

_FORM = "asclepius grades 1"
_NEEDED_COLUMNS = ("sheet", "rater", "item", "label", "grade")
_DELIMITERS = (",", ";", "\t")
_LONGEST_CELL = 1 << 26
AnswerId = tuple[str, str]
"""(item id, model)."""


@dataclass(frozen=True)
class Entry:
    """One place of a filled file as it stands there; `where` finds it again for the user."""

    sheet: str
    rater: str
    code: str
    label: str
    grade: Any
    where: str


def read_entries(content: bytes, name: str) -> list[Entry]:
    """All places of one file, a JSON or a CSV; an InputError if it is neither."""
    if name.lower().endswith(".csv"):
        return list(_entries_of_table(content, name))
    return list(_entries_of_page(content, name))


def collect_grades(files: Mapping[str, Iterable[Entry]], key: Key) -> dict[str, dict[AnswerId, int]]:
    """The grades of each rater of the files; a place without a grade is left out.

    Raises an InputError that names the place: a file of another sheet, a rater, item or label that the key
    does not have, a grade that is none, two grades of one rater for one answer.
    """
    grades: dict[str, dict[AnswerId, int]] = {}
    for name, entries in files.items():
        for entry in entries:
            answer = _answer_behind(entry, name, key)
            of_rater = grades.setdefault(entry.rater, {})
            grade = _parse_grade(entry, name)
            if grade is None:
                continue
            if of_rater.setdefault(answer, grade) != grade:
                raise InputError(
                    f"{name}, {entry.where}: {entry.rater} grades answer {entry.label} of {entry.code} with "
                    f"{grade} here and with {of_rater[answer]} elsewhere; leave out the file or row that "
                    "does not count"
                )
    return grades


def _answer_behind(entry: Entry, name: str, key: Key) -> AnswerId:
    if entry.sheet != key.sheet:
        raise InputError(
            f"{name}, {entry.where}: it belongs to the sheet {_short(entry.sheet)}, the key to {key.sheet}; "
            "give the files and the key of one drawing"
        )
    if entry.rater not in key.assignment:
        raise InputError(
            f"{name}, {entry.where}: the key has no rater {_short(entry.rater)}; its raters are "
            f"{', '.join(key.assignment)}"
        )
    answer = key.answer_behind(entry.rater, entry.code, entry.label)
    if answer is None:
        raise InputError(
            f"{name}, {entry.where}: the sheet of {entry.rater} has no answer {_short(entry.label)} of item "
            f"{_short(entry.code)}; put back what the sheet had there"
        )
    return answer


def _parse_grade(entry: Entry, name: str) -> int | None:
    if entry.grade is None or entry.grade == "":
        return None
    is_number = isinstance(entry.grade, int) and not isinstance(entry.grade, bool)
    if is_number and entry.grade in GRADES:
        return int(entry.grade)
    if isinstance(entry.grade, str) and re.fullmatch("[1-4]", entry.grade):
        return int(entry.grade)
    # Only a number is repeated: anything else may be a piece of a note in the wrong column.
    said = str(entry.grade)
    shown = said[:12] if re.fullmatch(r"-?\d+([.,]\d+)?", said) else "something that is no number"
    raise InputError(f"{name}, {entry.where}: {shown} is no grade; write 1, 2, 3 or 4, or leave it empty")


def _entries_of_page(content: bytes, name: str) -> Iterable[Entry]:
    try:
        values: Any = json.loads(content)
        if values["form"] != _FORM:
            raise ValueError
        rows = [(row["item"], row["label"], row["grade"]) for row in values["grades"]]
        sheet, rater = str(values["sheet"]), str(values["rater"])
    except (ValueError, KeyError, TypeError):
        raise InputError(
            f"{name} is no file of grades; give the JSON that the page saved, or the filled table as a .csv"
        ) from None
    for number, (code, label, grade) in enumerate(rows, 1):
        yield Entry(sheet, rater, str(code), str(label), grade, f"grade {number}")


def _entries_of_table(content: bytes, name: str) -> Iterable[Entry]:
    # For notes beyond the module's own limit of 131,072 characters.
    csv.field_size_limit(_LONGEST_CELL)
    lines = csv.reader(io.StringIO(_decode(content), newline=""), delimiter=_delimiter_of(content))
    heading = [cell.strip().lower() for cell in next(lines, [])]
    if missing := [column for column in _NEEDED_COLUMNS if column not in heading]:
        raise InputError(
            f"{name} has no column {', '.join(missing)}; a filled table has the columns {', '.join(COLUMNS)}"
        )
    for cells in lines:
        if not any(cell.strip() for cell in cells):
            continue
        # A row that is cut short has nothing in its last columns.
        row = dict(zip(heading, [*cells, *[""] * len(heading)], strict=False))
        sheet, rater, code, label, grade = (row[column].strip() for column in _NEEDED_COLUMNS)
        yield Entry(sheet, rater, code, label, grade, f"line {lines.line_num}")


def _decode(content: bytes) -> str:
    """UTF-8, as we write it; Excel saves a plain CSV in the code page of Windows."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")


def _delimiter_of(content: bytes) -> str:
    """As the heading has it: where the comma is the decimal sign, a spreadsheet writes semicolons."""
    heading = content.split(b"\n", 1)[0].decode("ascii", errors="replace")
    return max(_DELIMITERS, key=heading.count)


def _short(value: str) -> str:
    # Only what looks like a name is repeated: with columns moved, a piece of a note may stand here.
    return repr(value) if re.fullmatch(r"[\w-]{1,40}", value) else "that is written there"
