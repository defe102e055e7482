"""The token store: `tokens/<kind>/<split>-NNNNN.parquet`, documents by index, in a fixed order."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from asclepius_ray.artifacts import Folder
from asclepius_ray.tokens.rendering import TokenizedExample

SCHEMA = pa.schema([("input_ids", pa.list_(pa.int32())), ("loss_mask", pa.list_(pa.bool_()))])


@dataclass(frozen=True)
class Documents:
    """All documents of one kind and split; document i is `ids[offsets[i]:offsets[i + 1]]`."""

    ids: npt.NDArray[np.int32]
    mask: npt.NDArray[np.bool_]
    offsets: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def lengths(self) -> list[int]:
        lengths: list[int] = np.diff(self.offsets).tolist()
        return lengths

    @cached_property
    def loss_tokens(self) -> list[int]:
        """Targets of each document."""
        sums = np.concatenate(([0], np.cumsum(self.mask, dtype=np.int64)))
        counted: list[int] = (sums[self.offsets[1:]] - sums[self.offsets[:-1]]).tolist()
        return counted

    def tokens(self, index: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
        span = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        return self.ids[span], self.mask[span]


def write_documents(folder: Folder, name: str, documents: Sequence[TokenizedExample]) -> None:
    """Writes one shard below the store's folder."""
    table = pa.table(
        {
            "input_ids": [document.input_ids for document in documents],
            "loss_mask": [document.loss_mask for document in documents],
        },
        schema=SCHEMA,
    )
    with folder.open_output(name) as stream:
        pq.write_table(table, stream)


def read_documents(folder: Folder, kind: str, split: str) -> Documents:
    """Reads all shards of `notes` or `instructions`, `train` or `validation`; no shard, no documents."""
    filesystem, path = folder.filesystem()
    names = [name for name in folder.names() if name.startswith(f"{kind}/{split}-")]
    tables = [pq.read_table(f"{path}/{name}", filesystem=filesystem, schema=SCHEMA) for name in names]
    table = pa.concat_tables([SCHEMA.empty_table(), *tables]).combine_chunks()
    ids, mask = _flat(table["input_ids"]), _flat(table["loss_mask"])
    lengths = pa.compute.list_value_length(table["input_ids"]).to_numpy(zero_copy_only=False)
    offsets = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
    return Documents(ids.astype(np.int32), mask.astype(np.bool_), offsets.astype(np.int64))


def _flat(column: pa.ChunkedArray) -> npt.NDArray[np.generic]:
    parts = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32)
