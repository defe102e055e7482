"""A set of texts of `[evaluation.realism]` → its texts one after the other, and what it is known by.

Needs neither ray nor torch, so that a wrong path or column is refused before anything is started.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import PurePosixPath

from asclepius_ray.artifacts import MANIFEST_NAME, Folder, read_manifest
from asclepius_ray.errors import EvaluationError, InputError
from asclepius_ray.evaluation.realism_config import OWN_INPUT, OWN_NOTES, RealismConfig, TextsConfig
from asclepius_ray.tables.cells import show_names, text_of
from asclepius_ray.tables.files import Table, content_sha256, find_tables
from asclepius_ray.tables.rows import column_names, read_rows

InputTexts = Callable[[], Iterator[str | None]]
"""The texts of the run's own input, one for each row, None for one that is not used.

Handed over by the pipeline: how an input is read and cleaned is the synthesis's to know.
"""
_NOTE_COLUMN = "note"


def check_texts(config: RealismConfig) -> None:
    """An InputError if a set is not there, has no row or no such column.

    The run's own sets may not be there yet, and are not looked at.
    """
    for name, texts in config.texts.items():
        if not texts.is_own:
            for table in _tables_of(name, texts):
                _has_column(table, _column(texts), name)


def read_texts(
    root: Folder, config: RealismConfig, name: str, input_texts: InputTexts | None
) -> Iterator[str | None]:
    """The texts of a set in the order of its rows, up to its limit; None for a row that cannot be read.

    Streams, one row in memory. An InputError if there is nothing to read.
    """
    limit = config.limit_of(name) or None
    num_rows = 0
    for text in islice(_all_texts(root, config.texts[name], name, input_texts), limit):
        num_rows += 1
        yield text
    if not num_rows:
        raise InputError(f"{_setting(name)} has no rows; at least one is needed")


def texts_identity(root: Folder, name: str, texts: TextsConfig, input_identity: str) -> str:
    """A hash of what a set holds; where its files lie does not count.

    `input_identity`: that of the run's own input, for a set that is it.
    """
    if texts.path == OWN_INPUT:
        return input_identity
    if texts.path == OWN_NOTES:
        return read_manifest(root.child("notes")).identity
    return content_sha256(_tables_of(name, texts))


def _all_texts(
    root: Folder, texts: TextsConfig, name: str, input_texts: InputTexts | None
) -> Iterator[str | None]:
    if texts.path == OWN_INPUT:
        if input_texts is None:
            raise EvaluationError(
                f"{_setting(name)}: this root was made without an input; name the texts' file instead"
            )
        yield from input_texts()
        return
    if texts.path == OWN_NOTES:
        # Refuses the notes of a run that is not finished.
        read_manifest(root.child("notes"))
        texts = texts.model_copy(update={"path": root.child("notes").uri})
    column = _column(texts)
    for table in _tables_of(name, texts):
        if _has_column(table, column, name):
            for row in read_rows(table, [column]):
                yield None if row is None else text_of(row.get(column))


def _tables_of(name: str, texts: TextsConfig) -> list[Table]:
    found = find_tables(texts.path, _setting(name))
    # The manifest of an artefact ends like a table, and is none.
    return [table for table in found if PurePosixPath(table.path).name != MANIFEST_NAME] or found


def _column(texts: TextsConfig) -> str:
    return texts.column or _NOTE_COLUMN


def _has_column(table: Table, column: str, name: str) -> bool:
    """Whether there is a row to read; an InputError names the columns of a table that has others."""
    found = column_names(table)
    if found and found.count(column) != 1:
        what = "more than one column" if column in found else "no column"
        raise InputError(
            f"evaluation.realism.texts.{name}.column: {table.name} has {what} {column!r}; found "
            f"{show_names(found)}"
        )
    return bool(found)


def _setting(name: str) -> str:
    return f"evaluation.realism.texts.{name}.path"
