"""Results in input order → the Parquet files of `notes/`, `dataset/` and `rejected/`."""

from collections.abc import Iterable, Set
from contextlib import ExitStack
from dataclasses import asdict
from types import TracebackType

import pyarrow as pa

from asclepius_ray.artifacts import Folder
from asclepius_ray.records import Rejection
from asclepius_ray.synthesis.walk import RowResult
from asclepius_ray.tables.writer import EXAMPLE_SCHEMA, NOTE_SCHEMA, SPLITS, TableWriter

_REJECTION = pa.schema(
    [("row_index", pa.int64())] + [(name, pa.string()) for name in ("row_id", "state", "stage", "reason")]
)


class SplitWriter:
    """Writes the notes and the examples, each row to the side on which its article is."""

    def __init__(self, notes: Folder, dataset: Folder, validation_articles: Set[str]) -> None:
        self._validation_articles = validation_articles
        self._notes = {split: TableWriter(notes, split, NOTE_SCHEMA) for split in SPLITS}
        self._examples = {split: TableWriter(dataset, split, EXAMPLE_SCHEMA) for split in SPLITS}
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
            self._notes[split].add({name: getattr(result, name) for name in NOTE_SCHEMA.names})
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
