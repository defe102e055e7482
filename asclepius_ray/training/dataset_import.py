"""`training.dataset` → `imported_dataset/`: `notes/` and `dataset/` as the synthesis would have left them.

Streams: memory holds the patients' keys and a hash of every note, never the table. Where patients must be
held out the source is read twice, first for who they are.
"""

import hashlib
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import InputError
from asclepius_ray.records import Example
from asclepius_ray.tables.split import choose_validation_articles
from asclepius_ray.tables.writer import EXAMPLE_SCHEMA, NOTE_SCHEMA, SPLITS, TableWriter
from asclepius_ray.training.dataset_origin import read_origin
from asclepius_ray.training.dataset_source import SETTING, Source, SourceRow, find_source, read_source


def import_dataset(
    path: str, target: Folder, validation_share: float, seed: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Writes both folders; returns counts and details: input = ok + Σ rejected, by reason."""
    source = find_source(path)
    held_out = frozenset[str]()
    if not source.validation:
        patients = {row.patient for row in read_source(source.train) if isinstance(row, SourceRow)}
        held_out = choose_validation_articles(patients, validation_share, seed)
    with _Writers(target) as writers:
        for side, tables in (("train", source.train), ("validation", source.validation)):
            for row in read_source(tables):
                if isinstance(row, SourceRow):
                    writers.add("validation" if row.patient in held_out else side, row.example)
                else:
                    writers.rejected[row] += 1
    return _counted(writers, source, path)


class _Writers:
    """The tables of both splits; a note that several rows share is one note to learn."""

    def __init__(self, target: Folder) -> None:
        self.rejected = Counter[str]()
        self.examples = {
            split: TableWriter(target.child("dataset"), split, EXAMPLE_SCHEMA) for split in SPLITS
        }
        self.notes = {split: TableWriter(target.child("notes"), split, NOTE_SCHEMA) for split in SPLITS}
        self._seen: set[bytes] = set()
        self._stack = ExitStack()

    def __enter__(self) -> "_Writers":
        with ExitStack() as stack:
            for writer in (*self.examples.values(), *self.notes.values()):
                stack.enter_context(writer)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def add(self, split: str, example: Example) -> None:
        self.examples[split].add(asdict(example))
        note = hashlib.sha256(example.note.encode()).digest()
        if note not in self._seen:
            self._seen.add(note)
            row_index = self.notes[split].num_rows
            names = ("patient_id", "patient_uid", "note")
            self.notes[split].add(
                {"row_index": row_index, **{name: getattr(example, name) for name in names}}
            )


def _counted(writers: _Writers, source: Source, path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    rows = {split: writer.num_rows for split, writer in writers.examples.items()}
    num_ok = sum(rows.values())
    rejected = dict(sorted(writers.rejected.items()))
    if not rows["train"]:
        reasons = ", ".join(f"{reason} {count}" for reason, count in rejected.items()) or "no rows"
        raise InputError(
            f"{SETTING}: no row of {source.train[0].name} can be used ({reasons}); check its columns"
        )
    counts = {"input": num_ok + sum(rejected.values()), "ok": num_ok, "rejected": rejected}
    details = {
        "rows": rows,
        "notes": {split: writer.num_rows for split, writer in writers.notes.items()},
        "split": "by its files" if source.validation else "by patient",
        "tables_left_out": source.num_left_out,
        **read_origin(path),
    }
    return counts, details
