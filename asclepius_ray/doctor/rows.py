"""A few rows to look at: of what the run trains on where that is there, else an invented example."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow.parquet as pq

from asclepius_ray.artifacts import Folder, is_finished, read_manifest
from asclepius_ray.errors import InputError
from asclepius_ray.run import Run
from asclepius_ray.training.dataset_source import SourceRow, find_source, read_source
from asclepius_ray.training.sources import IMPORTED

NUM_ROWS = 64
_NOTE = """\
Discharge Summary
Patient: a 54-year-old man.
Reason for admission: fever and a productive cough for five days.
Course: chest radiography showed consolidation in the right lower lobe. Amoxicillin 1 g three times a day \
was given, with oxygen for two days. The fever settled on day 3.
Medication at discharge: amoxicillin 1 g three times a day for four more days.
Follow-up: general practitioner in one week."""
_QUESTION = "Which antibiotic was the patient given, and for how long is it to be taken at home?"
_ANSWER = "Amoxicillin, 1 g three times a day; it is to be taken for four more days at home."


@dataclass(frozen=True)
class Row:
    """What an example is made from."""

    note: str
    question: str
    answer: str


@dataclass(frozen=True)
class Sample:
    """The first rows of the dataset, and how many there are in all."""

    rows: list[Row]
    num_rows: int
    """0 where nobody has counted them yet."""
    is_invented: bool
    is_private: bool
    """The texts are real notes, or may be: none is shown unless it is asked for."""


def read_sample(run: Run) -> Sample:
    """The first train rows of the run; one invented row where its dataset is not finished.

    An InputError or ArtifactError says why they cannot be read.
    """
    if run.training.dataset:
        return _from_elsewhere(run)
    dataset = run.folder.child("dataset")
    is_private = holds_real_notes(run)
    if not is_finished(dataset):
        return Sample([Row(_NOTE, _QUESTION, _ANSWER)], 0, is_invented=True, is_private=is_private)
    rows = list(_first_rows(dataset))
    return Sample(rows, _num_train_rows(dataset), is_invented=False, is_private=is_private)


def holds_real_notes(run: Run) -> bool:
    """Whether the run's own rows are, or will be, notes of real patients."""
    dataset = run.folder.child("dataset")
    made_from = read_manifest(dataset).made_from if is_finished(dataset) else {}
    return "notes" in {run.input.kind, made_from.get("input", {}).get("kind")}


def _from_elsewhere(run: Run) -> Sample:
    """Whose notes these are nobody knows: they are taken to be real."""
    found = read_source(find_source(run.training.dataset).train)
    usable = (row.example for row in found if isinstance(row, SourceRow))
    rows = [Row(row.note, row.question, row.answer) for row in islice(usable, NUM_ROWS)]
    if not rows:
        raise InputError("training.dataset: no row of it can be used; check its columns")
    imported = run.folder.child(IMPORTED)
    num_rows = _num_train_rows(imported) if is_finished(imported) else 0
    return Sample(rows, num_rows, is_invented=False, is_private=True)


def _num_train_rows(dataset: Folder) -> int:
    return int(read_manifest(dataset).details.get("rows", {}).get("train", 0))


def _first_rows(dataset: Folder) -> Iterator[Row]:
    filesystem, path = dataset.filesystem()
    left = NUM_ROWS
    for name in dataset.names():
        if not (name.startswith("train-") and name.endswith(".parquet")):
            continue
        file = pq.ParquetFile(f"{path}/{name}", filesystem=filesystem)
        for batch in file.iter_batches(batch_size=left, columns=["note", "question", "answer"]):
            found: list[dict[str, Any]] = batch.to_pylist()
            yield from (Row(**row) for row in found[:left])
            left -= len(found[:left])
            if not left:
                return
