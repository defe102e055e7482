"""A few rows to look at: the run's own dataset where there is one, else an invented example."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from asclepius_ray.artifacts import Folder, is_finished, read_manifest

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
    """0 where the dataset is not there yet."""
    is_invented: bool
    is_private: bool
    """The run is on real notes: no text is shown unless it is asked for."""


def read_sample(root: Folder, input_kind: str) -> Sample:
    """The first train rows of the run's dataset; one invented row where it is not finished."""
    dataset = root.child("dataset")
    if not is_finished(dataset):
        invented = [Row(_NOTE, _QUESTION, _ANSWER)]
        return Sample(invented, 0, is_invented=True, is_private=input_kind == "notes")
    manifest = read_manifest(dataset)
    kinds = {input_kind, manifest.made_from.get("input", {}).get("kind")}
    rows = list(_first_rows(dataset))
    num_rows = int(manifest.details.get("rows", {}).get("train", 0))
    return Sample(rows, num_rows, is_invented=False, is_private="notes" in kinds)


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
