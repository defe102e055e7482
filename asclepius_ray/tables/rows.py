"""Streams rows out of CSV, JSON arrays, JSON lines and Parquet.

A row that cannot be read is None in the stream, in its place, and the reading goes on behind it.
No message holds a cell of a table: parsers quote what they stumble over, so their words are not passed on.
"""

import csv
import io
import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any

import ijson
import pyarrow
import pyarrow.parquet

from asclepius_ray.errors import InputError
from asclepius_ray.tables.files import BLOCK_BYTES, BROKEN_TEXT, Table

Row = Mapping[str, Any]

_PARQUET_ROWS = 256
# An unclosed quote would otherwise swallow the rest of the file; no case report is so long.
_LONGEST_CELL_CHARACTERS = 1 << 22


def column_names(table: Table) -> list[str]:
    """The columns of a table; none if it has no row. Of JSON, those of the first readable row."""
    if table.format == "csv":
        with _reporting(table), table.open_text() as stream:
            return _csv_header(csv.reader(stream, strict=True), table)
    if table.format == "parquet":
        with _reporting(table), _open_parquet(table) as parquet:
            return [str(name) for name in parquet.schema_arrow.names]
    num_unreadable = 0
    for row in read_rows(table, []):
        if row is not None:
            return list(row)
        num_unreadable += 1
    if num_unreadable:
        raise InputError(
            f"{table.name}: none of its {num_unreadable} rows can be read; expected an array of objects, "
            "or one object in each line"
        )
    return []


def read_rows(table: Table, columns: Sequence[str]) -> Iterator[Row | None]:
    """Every row in order, None for one that cannot be read. Of Parquet only `columns` are read."""
    with _reporting(table):
        if table.format == "parquet":
            yield from _parquet_rows(table, columns)
            return
        if table.format == "json" and _is_array(table):
            yield from _array_rows(table)
            return
        with table.open_text() as stream:
            yield from _csv_rows(stream, table) if table.format == "csv" else _line_rows(stream)


@contextmanager
def _reporting(table: Table) -> Iterator[None]:
    """Turns trouble with a file as a whole into an InputError that names the file."""
    csv.field_size_limit(_LONGEST_CELL_CHARACTERS)
    try:
        yield
    except UnicodeDecodeError:
        raise InputError(f"{table.name} holds text that is not UTF-8; convert it") from None
    except (OSError, EOFError, pyarrow.ArrowInvalid) as error:
        raise InputError(f"{table.name} cannot be read: {error}; is the file whole?") from error


def _csv_header(reader: Iterator[list[str]], table: Table) -> list[str]:
    try:
        names = next((fields for fields in reader if fields), [])
    except csv.Error:
        raise InputError(f"{table.name} has a first line that is not a CSV header") from None
    if any(BROKEN_TEXT in name or "\x00" in name for name in names):
        raise InputError(f"{table.name} is not UTF-8; save it as UTF-8")
    return [name.strip() for name in names]


class _Lines(Iterator[str]):
    """The lines of a file, with those of a broken row given back to be read anew."""

    def __init__(self, stream: Iterator[str]) -> None:
        self._stream = stream
        self._given_back: deque[str] = deque()
        self.of_row: list[str] = []

    def __next__(self) -> str:
        line = self._given_back.popleft() if self._given_back else next(self._stream)
        self.of_row.append(line)
        return line

    def give_back_all_but_the_first(self) -> None:
        self._given_back.extendleft(reversed(self.of_row[1:]))

    @property
    def rereading(self) -> bool:
        return bool(self._given_back)


def _csv_rows(stream: io.TextIOWrapper, table: Table) -> Iterator[Row | None]:
    """A broken row costs itself alone, though a lost quote runs on into the rows below it: its first
    line is the broken row, and reading starts anew at its second line.

    Where cells hold line breaks, the unreadable lines that follow are the rest of that one row.
    """
    lines = _Lines(stream)
    reader = csv.reader(lines, strict=True)
    header = _csv_header(reader, table)
    cells_hold_breaks = in_broken_row = False
    while True:
        lines.of_row.clear()
        in_broken_row = in_broken_row and lines.rereading and cells_hold_breaks
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error:
            fields = [""] * (len(header) + 1)
        if len(fields) == len(header):
            cells_hold_breaks = cells_hold_breaks or len(lines.of_row) > 1
            in_broken_row = False
            yield dict(zip(header, fields, strict=True))
        elif fields:
            if not in_broken_row:
                yield None
            in_broken_row = in_broken_row or len(lines.of_row) > 1
            lines.give_back_all_but_the_first()


def _line_rows(stream: io.TextIOWrapper) -> Iterator[Row | None]:
    for line in stream:
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        yield value if isinstance(value, dict) else None


def _is_array(table: Table) -> bool:
    """Tells an array from lines: many write one object a line into a file that ends in .json."""
    with table.open_text() as stream:
        while block := stream.read(4096):
            if block.strip():
                return block.lstrip().startswith("[")
    return False


class _Utf8:
    """The bytes of a text stream, so that a JSON parser meets no byte that is not UTF-8."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        return self._stream.read(size).encode()


def _array_rows(table: Table) -> Iterator[Row | None]:
    num_rows = 0
    with table.open_text() as stream:
        try:
            for value in ijson.items(_Utf8(stream), "item", buf_size=BLOCK_BYTES, use_float=True):
                num_rows += 1
                yield value if isinstance(value, dict) else None
        except ijson.JSONError:
            raise InputError(
                f"{table.name} is not JSON from row {num_rows + 1} on; is the file whole? "
                "A file of JSON lines, where a broken line costs one row, is safer"
            ) from None


def _open_parquet(table: Table) -> Any:
    file = table.filesystem.open_input_file(table.path)
    return pyarrow.parquet.ParquetFile(file, buffer_size=BLOCK_BYTES, pre_buffer=False)


def _parquet_rows(table: Table, columns: Sequence[str]) -> Iterator[Row]:
    with _open_parquet(table) as parquet:
        for batch in parquet.iter_batches(batch_size=_PARQUET_ROWS, columns=list(columns)):
            yield from batch.to_pylist()
