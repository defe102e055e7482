"""The token store: documents found by their number, in shards that are mapped and never read whole.

`tokens/<kind>/<split>-NNNNN.arrow` hold the tokens, uncompressed, so that the ranks of a node share one copy
of them: the pages of the files. `tokens/<kind>/<split>-index.arrow` says how long each document is and on
how many of its tokens loss is paid, which is all that packing needs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import ArtifactError
from asclepius_ray.tokens.rendering import TokenizedExample

SHARD_SCHEMA = pa.schema([("input_ids", pa.list_(pa.int32())), ("loss_mask", pa.list_(pa.bool_()))])
INDEX_SCHEMA = pa.schema([("shard", pa.int32()), ("tokens", pa.int32()), ("loss_tokens", pa.int32())])


@dataclass(frozen=True)
class Index:
    """One entry a document, in the order of the documents."""

    shards: npt.NDArray[np.int32]
    """Number of the shard that holds it; they rise."""
    tokens: npt.NDArray[np.int32]
    loss_tokens: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.tokens)

    @classmethod
    def of(cls, documents: Sequence[TokenizedExample], shard: int) -> "Index":
        """The entries of one shard."""
        return cls(
            np.full(len(documents), shard, dtype=np.int32),
            np.array([len(document.input_ids) for document in documents], dtype=np.int32),
            np.array([sum(document.loss_mask) for document in documents], dtype=np.int32),
        )


@dataclass(frozen=True)
class _Shard:
    """One mapped file: document i is `ids[offsets[i]:offsets[i + 1]]`."""

    ids: npt.NDArray[np.int32]
    mask: pa.BooleanArray
    offsets: npt.NDArray[np.int32]


@dataclass(frozen=True)
class Documents:
    """All documents of one kind and split, numbered from 0."""

    index: Index
    shards: tuple[_Shard, ...]

    def __len__(self) -> int:
        return len(self.index)

    def tokens(self, number: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
        """The ids of one document, and True for each of them on which loss is paid."""
        shard = int(self.index.shards[number])
        place = number - int(self._first_of_shard[shard])
        ids, mask, offsets = self.shards[shard].ids, self.shards[shard].mask, self.shards[shard].offsets
        start, end = int(offsets[place]), int(offsets[place + 1])
        return ids[start:end], mask.slice(start, end - start).to_numpy(zero_copy_only=False)

    @cached_property
    def _first_of_shard(self) -> npt.NDArray[np.int64]:
        return np.searchsorted(self.index.shards, np.arange(len(self.shards)))


def shard_name(kind: str, split: str, number: int) -> str:
    return f"{kind}/{split}-{number:05d}.arrow"


def index_name(kind: str, split: str) -> str:
    return f"{kind}/{split}-index.arrow"


def write_shard(
    store: Folder, kind: str, split: str, number: int, documents: Sequence[TokenizedExample]
) -> Index:
    """Writes one shard, whole or not at all, and returns its part of the index."""
    store.write_bytes(shard_name(kind, split, number), _as_file(_as_batch(documents)))
    return Index.of(documents, number)


def documents_in_memory(documents: Sequence[TokenizedExample]) -> Documents:
    """These documents as a store of one shard would give them, without a file."""
    return Documents(Index.of(documents, 0), (_shard_of(_as_batch(documents)),))


def write_index(store: Folder, kind: str, split: str, parts: Sequence[Index]) -> None:
    """Writes the index of all shards, given in the order of their numbers."""
    batch = pa.RecordBatch.from_arrays(
        [
            np.concatenate([np.zeros(0, np.int32), *(part.shards for part in parts)]),
            np.concatenate([np.zeros(0, np.int32), *(part.tokens for part in parts)]),
            np.concatenate([np.zeros(0, np.int32), *(part.loss_tokens for part in parts)]),
        ],
        schema=INDEX_SCHEMA,
    )
    store.write_bytes(index_name(kind, split), _as_file(batch))


def read_index(store: Folder, kind: str, split: str) -> Index:
    """The index of one kind and split, without a token; 12 bytes a document."""
    name = index_name(kind, split)
    try:
        batch = _only_batch(pa.ipc.open_file(store.read_bytes(name)), INDEX_SCHEMA)
    except (OSError, pa.ArrowInvalid) as error:
        raise _damaged(f"{store.uri}/{name}", error) from None
    return Index(*(batch[column].to_numpy() for column in INDEX_SCHEMA.names))


def open_documents(store: Path, kind: str, split: str) -> Documents:
    """`notes` or `instructions`, `train` or `validation`, of a store that lies on this machine.

    Every shard is mapped at once: what is damaged shows here and not at some later step, and a file may be
    removed from under its readers.
    """
    index = read_index(Folder(str(store)), kind, split)
    count = int(index.shards[-1]) + 1 if len(index) else 0
    shards = tuple(_map_shard(store / shard_name(kind, split, number)) for number in range(count))
    found = sum(len(shard.offsets) - 1 for shard in shards)
    if found != len(index):
        raise ArtifactError(
            f"{store} holds {found} documents of {kind}/{split}, its index {len(index)}; use --redo train to "
            "make it anew"
        )
    return Documents(index, shards)


def _map_shard(path: Path) -> _Shard:
    try:
        batch = _only_batch(pa.ipc.open_file(pa.memory_map(str(path))), SHARD_SCHEMA)
    except (OSError, pa.ArrowInvalid) as error:
        raise _damaged(str(path), error) from None
    return _shard_of(batch)


def _shard_of(batch: pa.RecordBatch) -> _Shard:
    ids = batch["input_ids"]
    return _Shard(ids.values.to_numpy(), batch["loss_mask"].values, ids.offsets.to_numpy())


def _only_batch(file: pa.ipc.RecordBatchFileReader, schema: pa.Schema) -> pa.RecordBatch:
    if file.num_record_batches != 1 or not file.schema.equals(schema):
        raise pa.ArrowInvalid("it has another layout than this program writes")
    return file.get_batch(0)


def _as_batch(documents: Sequence[TokenizedExample]) -> pa.RecordBatch:
    columns = {
        "input_ids": [document.input_ids for document in documents],
        "loss_mask": [document.loss_mask for document in documents],
    }
    return pa.RecordBatch.from_pydict(columns, schema=SHARD_SCHEMA)


def _as_file(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue().to_pybytes())


def _damaged(where: str, error: Exception) -> ArtifactError:
    return ArtifactError(
        f"{where} cannot be read as a part of the token store ({error}); use --redo train to make it anew"
    )
