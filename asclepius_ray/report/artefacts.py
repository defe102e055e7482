"""Reads what the stages of a run have left in its root; what is not there yet is None or empty.

The report sees folders and files only: it imports no stage.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet

from asclepius_ray.artifacts import Folder, Manifest, is_finished, read_manifest
from asclepius_ray.errors import ArtifactError
from asclepius_ray.metric_log import read_metrics
from asclepius_ray.report.evaluation_artefacts import read_scores

ARTIFACTS = ("dataset", "tokens", "training", "base_model", "model", "evaluation")
TEXT_COLUMNS = ("note", "question", "answer")


@dataclass(frozen=True)
class Artefacts:
    """Everything that the page is made from."""

    run: dict[str, Any]
    manifests: dict[str, Manifest]
    lengths_words: dict[str, list[int]]
    """Column of the dataset → words of each row."""
    metrics: list[dict[str, Any]]
    scores: dict[str, Any]
    examples: list[dict[str, Any]]


def read_artefacts(root: Folder) -> Artefacts:
    """Reads the finished artefacts of a run; an ArtifactError if there is none at all."""
    manifests = {name: read_manifest(root.child(name)) for name in ARTIFACTS if is_finished(root.child(name))}
    if not manifests:
        raise ArtifactError(f"{root.shown} holds no finished stage yet; run `asclepius run synthesize` first")
    return Artefacts(
        run=_read_json(root, "run.json") or {},
        manifests=manifests,
        lengths_words=_read_lengths(root.child("dataset")) if "dataset" in manifests else {},
        metrics=_read_metrics(root.child("training")),
        scores=read_scores(root.child("evaluation")) if "evaluation" in manifests else {},
        examples=_read_json(root.child("notes"), "examples.json") or [],
    )


def _read_json(folder: Folder, name: str) -> Any:
    if not folder.exists(name):
        return None
    try:
        return json.loads(folder.read_bytes(name))
    except ValueError:
        raise ArtifactError(
            f"{folder.shown}/{name} is not readable JSON; remove it and rerun its stage"
        ) from None


def _read_metrics(training: Folder) -> list[dict[str, Any]]:
    try:
        return read_metrics(training)
    except ValueError:
        raise ArtifactError(
            f"the metrics in {training.shown} have a line that is not JSON; redo the training"
        ) from None


def _read_lengths(dataset: Folder) -> dict[str, list[int]]:
    filesystem, path = dataset.filesystem()
    lengths: dict[str, list[int]] = {column: [] for column in TEXT_COLUMNS}
    for name in dataset.names():
        if not name.endswith(".parquet") or not name.startswith(("train-", "validation-")):
            continue
        with filesystem.open_input_file(f"{path}/{name}") as stream:
            file = pyarrow.parquet.ParquetFile(stream)
            for batch in file.iter_batches(batch_size=1024, columns=list(TEXT_COLUMNS)):
                for column in TEXT_COLUMNS:
                    lengths[column] += _count_words(batch.column(column).to_pylist())
    return lengths


def _count_words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]
