"""Two optimizer steps of the run's own training, from the base model to the export, in a folder of their own.

The path is the real one, `training.stage.train`: what the workers cannot load, build, hold in memory, write
or export fails here, in minutes.
"""

import time
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from asclepius_ray.artifacts import Folder, write_manifest
from asclepius_ray.config import CountRange
from asclepius_ray.doctor.rows import Row, Sample
from asclepius_ray.metric_log import read_metrics
from asclepius_ray.progress import Progress
from asclepius_ray.run import Run
from asclepius_ray.training.config import TrainingConfig
from asclepius_ray.training.order import accumulation_steps
from asclepius_ray.training.stage import train

STEPS = 2
_CHARACTERS_PER_TOKEN = 8
"""More than any tokenizer has on English text: so long a text fills a row for certain."""


@dataclass(frozen=True)
class Rehearsal:
    """What the two steps have shown."""

    step_seconds: float
    """One optimizer step of the run itself, with all its micro-batches."""
    seconds: float
    """From the base model to the exported model."""


def rehearse(run: Run, sample: Sample, folder: Folder, progress: Progress) -> Rehearsal:
    """Trains two steps in `folder`, which is empty; raises what the training raises."""
    training = _shortened(run.training)
    num_rows = STEPS * training.global_batch
    _write_rows(folder, sample.rows, num_rows, run.tokens.sequence_length)
    started = time.monotonic()
    # Its rows are longer than the sequence by design.
    tokens = run.tokens.model_copy(update={"overlong": "shorten"})
    train(folder, tokens, training, run.seed, progress, {"rehearsal": run.name})
    seconds = time.monotonic() - started
    lines = read_metrics(folder.child("training"))
    # The first step also builds what all later ones use.
    last = [line["seconds"] for line in lines if "loss" in line][-1]
    workers = training.workers.fewest
    forward_passes = accumulation_steps(run.training.global_batch, workers, training.micro_batch)
    return Rehearsal(last * forward_passes, seconds)


def _shortened(training: TrainingConfig) -> TrainingConfig:
    """The same training with as few workers as it may have, one forward pass a step and one short phase."""
    phase = training.phases[-1].model_copy(update={"epochs": 1})
    fewest = training.workers.fewest
    changes = {
        "phases": (phase,),
        "workers": CountRange(fewest, fewest),
        "global_batch": fewest * training.micro_batch,
        "validation_steps": 0,
        "early_stopping_patience": 0,
        "trackers": (),
        # The rows are written here, whatever the run itself trains on.
        "dataset": "",
    }
    return training.model_copy(update=changes)


def _write_rows(folder: Folder, rows: list[Row], num_rows: int, sequence_length: int) -> None:
    """Notes and examples that each fill a row of the training, made of the sample's own texts."""
    length = sequence_length * _CHARACTERS_PER_TOKEN
    filled = [_filled(rows[number % len(rows)], length) for number in range(num_rows + 1)]
    for split, of_split in (("train", filled[:-1]), ("validation", filled[-1:])):
        keys = {
            "patient_id": list(range(len(of_split))),
            "patient_uid": [f"{n}-1" for n in range(len(of_split))],
        }
        notes = {**keys, "row_index": keys["patient_id"], "note": [row.note for row in of_split]}
        examples = {
            **keys,
            "note": notes["note"],
            "question": [row.question for row in of_split],
            "answer": [row.answer for row in of_split],
            "task": ["" for _ in of_split],
        }
        for name, table in (("notes", notes), ("dataset", examples)):
            with folder.child(name).open_output(f"{split}-00000.parquet") as stream:
                pq.write_table(pa.table(table), stream)
    for name in ("notes", "dataset"):
        write_manifest(folder.child(name), name, {"ok": len(filled)}, {"rehearsal": True})


def _filled(row: Row, length: int) -> Row:
    """The row with its note said again and again until it is long enough."""
    times = -(-length // (len(row.note) + 1))
    return Row("\n".join([row.note] * times), row.question, row.answer)
