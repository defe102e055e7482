"""Notes and a dataset → `tokens/`, by Ray Data on all workers.

The rows are cut into pieces of fixed size, and each piece becomes one shard with a name of its own: the
store is the same whatever the number of workers and whoever is done first.
"""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray.data
from transformers import PreTrainedTokenizerBase

from asclepius_ray.artifacts import Folder, Manifest
from asclepius_ray.errors import TrainingError
from asclepius_ray.tables.writer import SPLITS
from asclepius_ray.tokens.config import TokensConfig
from asclepius_ray.tokens.rendering import TokenizedExample, render_example, render_note
from asclepius_ray.tokens.store import Index, shard_name, write_index, write_shard
from asclepius_ray.tokens.tokenizer import load_tokenizer

PIECE_ROWS = 2000
COLUMNS = {"notes": ("note",), "instructions": ("note", "question", "answer")}
_SUMMED = ("rows", "documents", "tokens", "loss_tokens", "shortened")


class Dropped(StrEnum):
    """Why a row has no token to learn from."""

    ANSWER_TOO_LONG = "answer_too_long"
    """The answer leaves no room for its question, even without the note."""
    TOO_LONG = "too_long"
    """It is longer than the sequence, and `tokens.overlong` is "reject"."""
    EMPTY = "empty"


@dataclass(frozen=True)
class Piece:
    """Rows `start:stop` of one file of the source, and the number of the shard that they become."""

    kind: str
    split: str
    source: str
    start: int
    stop: int
    shard: int


@dataclass(frozen=True)
class Work:
    """What every piece needs to be tokenised; plain values, so that they travel as they are."""

    sources: Mapping[str, str]
    """Kind → URI of the folder that holds its rows."""
    base_model: str
    store: str
    tokenizer_sha256: str
    tokens: Mapping[str, Any]


def plan_pieces(sources: Mapping[str, Folder]) -> list[Piece]:
    """All pieces of both kinds and splits, in the order of the rows."""
    return [
        piece for kind, folder in sources.items() for split in SPLITS for piece in _plan(kind, split, folder)
    ]


def tokenize_sources(
    sources: Mapping[str, Folder],
    base_model: Folder,
    store: Folder,
    tokenizer_sha256: str,
    tokens: TokensConfig,
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Writes every shard and index.

    Returns `{"notes/train": {rows, documents, …}, …}` for the manifest, and the names of the shards.
    """
    pieces = plan_pieces(sources)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    uris = {kind: folder.uri for kind, folder in sources.items()}
    work = Work(uris, base_model.uri, store.uri, tokenizer_sha256, tokens.model_dump(mode="json"))
    done = (
        ray.data.from_items([asdict(piece) for piece in pieces], override_num_blocks=len(pieces))
        .map_batches(tokenize_batch, fn_kwargs={"work": work}, batch_size=1)
        .take_all()
        if pieces
        else []
    )
    done.sort(key=lambda row: row["shard"])
    counts = {}
    for kind in sources:
        for split in SPLITS:
            rows = [row for row in done if (row["kind"], row["split"]) == (kind, split)]
            write_index(store, kind, split, [_index_of(row) for row in rows])
            counts[f"{kind}/{split}"] = _sum(row["counts"] for row in rows)
    return counts, [shard_name(piece.kind, piece.split, piece.shard) for piece in pieces]


def tokenizer_sha256(base_model: Manifest) -> str:
    """A hash of all files that make the tokenizer; the same weights may come with another one."""
    files = {name: base_model.files[name] for name in base_model.details["tokenizer_files"]}
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def require_few_dropped(counts: Mapping[str, Mapping[str, Any]], kinds: Iterable[str], share: float) -> None:
    """A TrainingError if more than `share` of a kind's rows have no token to learn from."""
    for kind in sorted(set(kinds)):
        both = [counts[f"{kind}/{split}"] for split in SPLITS]
        num_rows = sum(found["rows"] for found in both)
        dropped = Counter[str]()
        for found in both:
            dropped.update(found["dropped"])
        if dropped.total() > share * num_rows:
            reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(dropped.items()) if count)
            raise TrainingError(
                f"{dropped.total()} of {num_rows} rows of kind {kind!r} have no token to learn from "
                f"({reasons}), more than tokens.max_dropped_share = {share:g} allows; raise "
                'tokens.sequence_length, set tokens.overlong = "shorten", or allow a larger share'
            )


def tokenize_batch(batch: dict[str, np.ndarray[Any, Any]], work: Work) -> pa.Table:
    """One piece per row of the batch: reads, tokenises, writes its shard, returns its index and counts."""
    rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
    tokenizer = _tokenizer(work.base_model, work.tokenizer_sha256)
    done: list[dict[str, Any]] = []
    for row in rows:
        piece = Piece(**{name: getattr(value, "item", lambda v=value: v)() for name, value in row.items()})
        texts = _read(Folder(work.sources[piece.kind]), piece)
        documents, counts = tokenize_rows(tokenizer, piece.kind, texts, TokensConfig(**work.tokens))
        index = write_shard(Folder(work.store), piece.kind, piece.split, piece.shard, documents)
        lengths = {"tokens": index.tokens.tolist(), "loss_tokens": index.loss_tokens.tolist()}
        done.append(
            {"kind": piece.kind, "split": piece.split, "shard": piece.shard, **lengths, "counts": counts}
        )
    return pa.Table.from_pylist(done, schema=_DONE)


def tokenize_rows(
    tokenizer: PreTrainedTokenizerBase, kind: str, rows: Iterable[Mapping[str, str]], tokens: TokensConfig
) -> tuple[list[TokenizedExample], dict[str, int]]:
    """The documents of some rows, and what became of the rows: rows = kept + dropped, by reason."""
    documents: list[TokenizedExample] = []
    counts = Counter[str](dict.fromkeys((*_SUMMED, *Dropped), 0))
    for row in rows:
        counts["rows"] += 1
        made = _note_pieces(tokenizer, row, tokens) if kind == "notes" else _example(tokenizer, row, tokens)
        if isinstance(made, Dropped):
            counts[made] += 1
            continue
        for document in made:
            documents.append(document)
            counts["documents"] += 1
            counts["tokens"] += len(document.input_ids)
            counts["loss_tokens"] += sum(document.loss_mask)
            counts["shortened"] += document.shortened
    return documents, dict(counts)


def _note_pieces(
    tokenizer: PreTrainedTokenizerBase, row: Mapping[str, str], tokens: TokensConfig
) -> list[TokenizedExample] | Dropped:
    pieces = render_note(tokenizer, row["note"], tokens.sequence_length)
    if len(pieces) > 1 and tokens.overlong == "reject":
        return Dropped.TOO_LONG
    return pieces if row["note"].strip() else Dropped.EMPTY


def _example(
    tokenizer: PreTrainedTokenizerBase, row: Mapping[str, str], tokens: TokensConfig
) -> list[TokenizedExample] | Dropped:
    if not row["answer"].strip():
        return Dropped.EMPTY
    example = render_example(tokenizer, row["note"], row["question"], row["answer"], tokens.sequence_length)
    if example is None:
        return Dropped.ANSWER_TOO_LONG
    return Dropped.TOO_LONG if example.shortened and tokens.overlong == "reject" else [example]


_DONE = pa.schema(
    [
        ("kind", pa.string()),
        ("split", pa.string()),
        ("shard", pa.int32()),
        ("tokens", pa.list_(pa.int32())),
        ("loss_tokens", pa.list_(pa.int32())),
        ("counts", pa.struct([(name, pa.int64()) for name in (*_SUMMED, *map(str, Dropped))])),
    ]
)


def _plan(kind: str, split: str, folder: Folder) -> list[Piece]:
    filesystem, path = folder.filesystem()
    pieces: list[Piece] = []
    for name in folder.names():
        if not (name.startswith(f"{split}-") and name.endswith(".parquet")):
            continue
        num_rows = pq.read_metadata(f"{path}/{name}", filesystem=filesystem).num_rows
        for start in range(0, num_rows, PIECE_ROWS):
            stop = min(start + PIECE_ROWS, num_rows)
            pieces.append(Piece(kind, split, name, start, stop, len(pieces)))
    return pieces


def _read(folder: Folder, piece: Piece) -> list[dict[str, str]]:
    """The rows of a piece; of the file only the row groups that hold them."""
    filesystem, path = folder.filesystem()
    with filesystem.open_input_file(f"{path}/{piece.source}") as stream:
        parquet = pq.ParquetFile(stream)
        sizes = [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]
        ends = np.cumsum(sizes)
        first = int(np.searchsorted(ends, piece.start, side="right"))
        last = int(np.searchsorted(ends, piece.stop, side="left"))
        table = parquet.read_row_groups(list(range(first, last + 1)), columns=list(COLUMNS[piece.kind]))
    before = int(ends[first]) - sizes[first]
    rows: list[dict[str, str]] = table.slice(piece.start - before, piece.stop - piece.start).to_pylist()
    return rows


@lru_cache(maxsize=1)
def _tokenizer(base_model: str, sha256: str) -> PreTrainedTokenizerBase:
    """Loaded once a process; the hash tells another tokenizer at the same place."""
    return load_tokenizer(Folder(base_model))


def _index_of(row: Mapping[str, Any]) -> Index:
    return Index(
        np.full(len(row["tokens"]), row["shard"], dtype=np.int32),
        np.array(row["tokens"], dtype=np.int32),
        np.array(row["loss_tokens"], dtype=np.int32),
    )


def _sum(counts: Iterable[Mapping[str, int]]) -> dict[str, Any]:
    """Sums of one kind and split; rows = documents + dropped for the instructions."""
    total = Counter[str]()
    for found in counts:
        total.update(found)
    dropped = {str(reason): total[reason] for reason in Dropped}
    return {**{name: total[name] for name in _SUMMED}, "dropped": dropped}
