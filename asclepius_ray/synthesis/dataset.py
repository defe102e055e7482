"""Results in input order → the Parquet files of `notes/`, `dataset/` and `rejected/`.

The bytes depend on the rows alone: shards and row groups are cut by count, never by how rows arrived.
"""

from collections.abc import Iterable, Set
from contextlib import ExitStack
from dataclasses import asdict
from types import TracebackType
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from asclepius_ray.artifacts import Folder
from asclepius_ray.records import Rejection
from asclepius_ray.synthesis.walk import RowResult

GROUP_ROWS = 1_000
SHARD_ROWS = 50 * GROUP_ROWS
SPLITS = ("train", "validation")

_EXAMPLE = pa.schema(
    [("patient_id", pa.int64())]
    + [(name, pa.string()) for name in ("patient_uid", "note", "question", "answer", "task")]
)
_NOTE = pa.schema(
    [
        ("row_index", pa.int64()),
        ("patient_id", pa.int64()),
        ("patient_uid", pa.string()),
        ("note", pa.string()),
    ]
)
_REJECTION = pa.schema(
    [("row_index", pa.int64())] + [(name, pa.string()) for name in ("row_id", "state", "stage", "reason")]
)


class TableWriter:
    """Writes rows as `{name}-00000.parquet`, `{name}-00001.parquet`, …; at least one file, if empty."""

    def __init__(self, folder: Folder, name: str, schema: pa.Schema) -> None:
        self.num_rows = 0
        self._folder = folder
        self._name = name
        self._schema = schema
        self._rows: list[dict[str, Any]] = []
        self._stream: IO[bytes] | None = None
        self._parquet: pq.ParquetWriter | None = None

    def __enter__(self) -> "TableWriter":
        self._open_shard()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._write_group()
        self._close_shard()

    def add(self, row: dict[str, Any]) -> None:
        if self.num_rows and self.num_rows % SHARD_ROWS == 0:
            self._close_shard()
            self._open_shard()
        self._rows.append(row)
        self.num_rows += 1
        if len(self._rows) == GROUP_ROWS:
            self._write_group()

    def _open_shard(self) -> None:
        self._stream = self._folder.open_output(f"{self._name}-{self.num_rows // SHARD_ROWS:05d}.parquet")
        self._parquet = pq.ParquetWriter(self._stream, self._schema, compression="zstd")

    def _write_group(self) -> None:
        if self._rows and self._parquet is not None:
            self._parquet.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows = []

    def _close_shard(self) -> None:
        # The stream is closed even where the end of the file cannot be written (a full disk).
        with ExitStack() as stack:
            if self._stream is not None:
                stack.callback(self._stream.close)
            if self._parquet is not None:
                stack.callback(self._parquet.close)
        self._stream = self._parquet = None


class SplitWriter:
    """Writes the notes and the examples, each row to the side on which its article is."""

    def __init__(self, notes: Folder, dataset: Folder, validation_articles: Set[str]) -> None:
        self._validation_articles = validation_articles
        self._notes = {split: TableWriter(notes, split, _NOTE) for split in SPLITS}
        self._examples = {split: TableWriter(dataset, split, _EXAMPLE) for split in SPLITS}
        self._stack = ExitStack()

    def __enter__(self) -> "SplitWriter":
        with ExitStack() as stack:
            for writer in (*self._notes.values(), *self._examples.values()):
                stack.enter_context(writer)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def add(self, result: RowResult) -> None:
        """Keeps an accepted note, and the whole example of an ok row."""
        split = "validation" if result.article in self._validation_articles else "train"
        if result.note:
            self._notes[split].add({name: getattr(result, name) for name in _NOTE.names})
        if result.state == "ok":
            self._examples[split].add(asdict(result.example))

    @property
    def num_notes(self) -> dict[str, int]:
        return {split: writer.num_rows for split, writer in self._notes.items()}

    @property
    def num_examples(self) -> dict[str, int]:
        return {split: writer.num_rows for split, writer in self._examples.items()}


def write_rejections(folder: Folder, rejections: Iterable[Rejection]) -> None:
    """Writes the rows that are not in the dataset, in input order: codes, never a text."""
    with TableWriter(folder, "rejected", _REJECTION) as writer:
        for rejection in sorted(rejections, key=lambda rejection: rejection.row_index):
            writer.add(asdict(rejection))
