"""`notes/` and `dataset/` → `tokens/`, by Ray Data on the workers.

The rows are cut into pieces of fixed size, and each piece becomes one shard with a name of its own: the
store is the same whatever the number of workers and whoever is done first.
"""

import logging
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import ray.data
from transformers import PreTrainedTokenizerBase

from asclepius_ray.artifacts import Folder
from asclepius_ray.tokens.rendering import TokenizedExample, render_example, render_note
from asclepius_ray.tokens.store import write_documents
from asclepius_ray.tokens.tokenizer import load_tokenizer

PIECE_ROWS = 2000
SOURCES = {"notes": "notes", "instructions": "dataset"}
SPLITS = ("train", "validation")


@dataclass(frozen=True)
class Piece:
    """Rows `start:stop` of one file of the source artefact, and the shard that they become."""

    kind: str
    split: str
    source: str
    start: int
    stop: int
    shard: str


def plan_pieces(root: Folder) -> list[Piece]:
    """All pieces of both kinds and splits, in the order of the rows."""
    pieces = []
    for kind, artifact in SOURCES.items():
        folder = root.child(artifact)
        filesystem, path = folder.filesystem()
        for split in SPLITS:
            number = 0
            for name in folder.names():
                if not (name.startswith(f"{split}-") and name.endswith(".parquet")):
                    continue
                rows = pq.read_metadata(f"{path}/{name}", filesystem=filesystem).num_rows
                for start in range(0, rows, PIECE_ROWS):
                    stop = min(start + PIECE_ROWS, rows)
                    shard = f"{kind}/{split}-{number:05d}.parquet"
                    pieces.append(Piece(kind, split, name, start, stop, shard))
                    number += 1
    return pieces


def tokenize_pieces(root: Folder, sequence_length: int) -> dict[str, dict[str, Any]]:
    """Writes every shard; returns `{"notes/train": {rows, documents, tokens, …}, …}` for the manifest."""
    pieces = plan_pieces(root)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    settings = {"uri": root.uri, "sequence_length": sequence_length}
    counted = (
        ray.data.from_items([asdict(piece) for piece in pieces], override_num_blocks=len(pieces))
        .map_batches(tokenize_batch, fn_kwargs=settings, batch_size=1)
        .take_all()
        if pieces
        else []
    )
    totals: dict[str, Counter[str]] = {f"{kind}/{split}": Counter() for kind in SOURCES for split in SPLITS}
    for row in counted:
        key = f"{row.pop('kind')}/{row.pop('split')}"
        totals[key].update({name: int(value) for name, value in row.items()})
    return {key: _counts(total) for key, total in totals.items()}


def tokenize_batch(
    batch: dict[str, np.ndarray[Any, Any]], uri: str, sequence_length: int
) -> dict[str, list[Any]]:
    """One piece per row of the batch: reads, tokenises, writes its shard, returns what it counted."""
    root = Folder(uri)
    tokenizer = load_tokenizer(root.child("base_model"))
    rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
    counted: list[dict[str, Any]] = []
    for row in rows:
        piece = Piece(**{name: getattr(value, "item", lambda v=value: v)() for name, value in row.items()})
        documents, counts = tokenize_piece(root, piece, tokenizer, sequence_length)
        write_documents(root.child("tokens"), piece.shard, documents)
        counted.append({"kind": piece.kind, "split": piece.split, **counts})
    return {name: [counts[name] for counts in counted] for name in counted[0]}


def tokenize_piece(
    root: Folder, piece: Piece, tokenizer: PreTrainedTokenizerBase, sequence_length: int
) -> tuple[list[TokenizedExample], dict[str, int]]:
    """The documents of one piece, and the counts of it."""
    filesystem, path = root.child(SOURCES[piece.kind]).filesystem()
    table = pq.read_table(f"{path}/{piece.source}", filesystem=filesystem)
    documents: list[TokenizedExample] = []
    dropped = 0
    for row in table.slice(piece.start, piece.stop - piece.start).to_pylist():
        if piece.kind == "notes":
            documents += render_note(tokenizer, row["note"], sequence_length)
            continue
        example = render_example(tokenizer, row["note"], row["question"], row["answer"], sequence_length)
        if example is None:
            dropped += 1
        else:
            documents.append(example)
    counts = {
        "rows": piece.stop - piece.start,
        "documents": len(documents),
        "tokens": sum(len(document.input_ids) for document in documents),
        "loss_tokens": sum(sum(document.loss_mask) for document in documents),
        "shortened": sum(document.shortened for document in documents),
        "answer_too_long": dropped,
    }
    return documents, counts


def _counts(total: Counter[str]) -> dict[str, Any]:
    """Sums of one kind and split; rows = documents + dropped for the instructions."""
    names = ("rows", "documents", "tokens", "loss_tokens", "shortened")
    return {**{name: total[name] for name in names}, "dropped": {"answer_too_long": total["answer_too_long"]}}
