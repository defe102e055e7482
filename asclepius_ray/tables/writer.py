"""Rows in their order → Parquet files of one schema, cut into shards.

The bytes depend on the rows alone: shards and row groups are cut by count, never by how rows arrived.
"""

from contextlib import ExitStack
from types import TracebackType
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from asclepius_ray.artifacts import Folder

GROUP_ROWS = 1_000
SHARD_ROWS = 50 * GROUP_ROWS
SPLITS = ("train", "validation")

EXAMPLE_SCHEMA = pa.schema(
    [("patient_id", pa.int64())]
    + [(name, pa.string()) for name in ("patient_uid", "note", "question", "answer", "task")]
)
NOTE_SCHEMA = pa.schema(
    [
        ("row_index", pa.int64()),
        ("patient_id", pa.int64()),
        ("patient_uid", pa.string()),
        ("note", pa.string()),
    ]
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
