"""Reads the input (tables of case reports, or of notes) and yields one CaseReport or Rejection a row.

Streams: memory holds one row at a time and the keys of the patients seen. A row is rejected as
`unreadable_row`, `missing_patient_uid`, `empty_text` or `duplicate` (the first usable row of a patient
counts), one of MIMIC-III's NOTEEVENTS also as `other_category` or `marked_as_error`. What is wrong with
the input as a whole is an InputError before the first record, except for a file that turns out to be torn
in its middle.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import chain, islice

from asclepius_ray.errors import InputError
from asclepius_ray.records import CaseReport, Rejection
from asclepius_ray.synthesis.cleaning import age_years, clean_note, clean_text
from asclepius_ray.synthesis.columns import Columns, resolve_columns
from asclepius_ray.synthesis.config import InputConfig
from asclepius_ray.tables.cells import integer_of, is_unicode, key_of, text_of
from asclepius_ray.tables.files import Table, content_sha256, find_tables
from asclepius_ray.tables.rows import Row, column_names, read_rows


def read_case_reports(config: InputConfig) -> Iterator[CaseReport | Rejection]:
    """Yields one record for every row of the input, in its order; the first `limit` rows if set.

    A row's text is cleaned: a case report into prose, a note (kind "notes") with its lines kept.
    """
    tables = find_tables(config.path, "input.path")
    rows = _rows_of([(table, _columns_of(table, config)) for table in tables])
    first = next(rows, None)
    if first is None:
        raise InputError(f"{tables[0].name} has no rows; at least one is needed")
    return _records(chain([first], rows), config)


def input_identity(config: InputConfig) -> str:
    """A sha256 over the content of the input's files; an InputError where there is nothing to read."""
    return content_sha256(find_tables(config.path, "input.path"))


def _columns_of(table: Table, config: InputConfig) -> Columns | None:
    names = column_names(table)
    return resolve_columns(names, config, table.name) if names else None


def _rows_of(tables: list[tuple[Table, Columns | None]]) -> Iterator[tuple[Row | None, Columns]]:
    for table, columns in tables:
        if columns is not None:
            for row in read_rows(table, columns.names):
                yield row, columns


def _records(
    rows: Iterator[tuple[Row | None, Columns]], config: InputConfig
) -> Iterator[CaseReport | Rejection]:
    clean = clean_note if config.kind == "notes" else clean_text
    seen: set[str] = set()
    num_notes_of: Counter[str] = Counter()
    for index, (row, columns) in enumerate(islice(rows, config.limit or None)):
        uid = "" if row is None else _patient_uid(row, columns, index, num_notes_of)
        text = None if row is None else text_of(row.get(columns.text))
        if row is None or text is None or not is_unicode(uid):
            yield _rejection(index, "", "unreadable_row")
        elif not uid:
            yield _rejection(index, "", "missing_patient_uid")
        elif fault := _noteevents_fault(row, columns, config.note_category):
            yield _rejection(index, uid, fault)
        elif not (cleaned := clean(text)):
            yield _rejection(index, uid, "empty_text")
        elif uid in seen:
            yield _rejection(index, uid, "duplicate")
        else:
            seen.add(uid)
            yield _report(index, uid, cleaned, row, columns)


def _noteevents_fault(row: Row, columns: Columns, wanted: str) -> str:
    """Why a row of NOTEEVENTS is left out, "" where it is not."""
    if not columns.is_noteevents:
        return ""
    category = row.get(columns.category)
    if wanted and (not isinstance(category, str) or category.strip().lower() != wanted.strip().lower()):
        return "other_category"
    marked = row.get(columns.is_error)
    return "marked_as_error" if marked is True or key_of(marked) in ("1", "1.0") else ""


def _report(index: int, uid: str, text: str, row: Row, columns: Columns) -> CaseReport:
    gender = row.get(columns.gender)
    return CaseReport(
        row_index=index,
        row_id=uid,
        patient_id=integer_of(row.get(columns.patient_id), index),
        patient_uid=uid,
        text=text,
        age_years=age_years(row.get(columns.age)),
        gender=gender.strip() if isinstance(gender, str) and is_unicode(gender) else "",
    )


def _rejection(index: int, uid: str, reason: str) -> Rejection:
    return Rejection(index, uid or f"row {index + 1}", "rejected", "input", reason)


def _patient_uid(row: Row, columns: Columns, index: int, num_notes_of: Counter[str]) -> str:
    """The key of the row, empty where its cell is.

    Notes need no such column. A patient has many of them. In NOTEEVENTS they have numbers of their own:
    `<SUBJECT_ID>-<ROW_ID>`. Elsewhere they are counted, `<patient_id>-1`, `<patient_id>-2`, ..., and without
    a patient_id the row's place is its key. What stands before the dash ends in a digit, as an article's
    number does: that keeps a patient on one side of the split.
    """
    if columns.patient_uid:
        return key_of(row.get(columns.patient_uid))
    patient = key_of(row.get(columns.patient_id)).replace("-", "_")
    if columns.note_id:
        note_id = key_of(row.get(columns.note_id)).removesuffix(".0")
        known = patient[-1:].isdecimal() and note_id.isdecimal()
        return f"{patient}-{note_id}" if known else ""
    if not patient:
        return "" if columns.is_noteevents else f"row{index + 1}"
    if not patient[-1].isdecimal():
        patient += "_0"
    num_notes_of[patient] += 1
    return f"{patient}-{num_notes_of[patient]}"
