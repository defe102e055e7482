"""What is replaced on DeepSpeed's engine for a lone worker does what it must: a plain loop's steps.

`test_export.py` holds the norms of two workers against a plain loop's."""

import json
from pathlib import Path

import pytest
from artefacts import write_store
from ranks import run_on_ranks
from test_training_step import (
    LENGTH,
    PEAK,
    RESET_AT,
    STEPS,
    load_phase,
    make_documents,
    make_model,
    plain_loop,
    settings,
)

from asclepius_ray.artifacts import Folder
from asclepius_ray.training.schedule import learning_rate


def take_steps(rank: int, folder: str) -> None:
    """The norm of every step's gradient, and its loss."""
    from asclepius_ray.training.checkpoints.adam import reset_moments
    from asclepius_ray.training.checkpoints.writing import CheckpointWriter
    from asclepius_ray.training.engine import start_engine
    from asclepius_ray.training.engine_tuning import gradient_norm
    from asclepius_ray.training.loop import Job, Trainer
    from asclepius_ray.training.loop_state import LoopState

    phase, training = load_phase(Path(folder) / "store"), settings(0, "fp32", 2)
    engine = start_engine(Path(folder) / "model", training)
    writer = CheckpointWriter(engine, Folder(folder), num_kept=1)
    job = Job(Folder(folder), LENGTH, training, seed=1, board=None)
    trainer = Trainer(job, engine, LoopState(), [], writer)
    losses, norms = [], []
    for step in range(STEPS):
        if step in (0, RESET_AT):
            reset_moments(engine)
        losses.append(trainer.optimizer_step(*phase.batch(step), learning_rate(step, STEPS, PEAK, 0.03)))
        norms.append(gradient_norm(engine))
    (Path(folder) / "found.json").write_text(json.dumps({"losses": losses, "norms": norms}))


def test_norm_and_losses_of_a_lone_worker_are_those_of_a_plain_loop(tmp_path: Path) -> None:
    make_model().save_pretrained(tmp_path / "model")
    write_store(tmp_path / "store", {"notes/train": make_documents(), "notes/validation": []})
    run_on_ranks(take_steps, 1, str(tmp_path))
    found = json.loads((tmp_path / "found.json").read_text())
    losses, norms, _ = plain_loop(tmp_path / "model", tmp_path / "store")
    assert found["norms"] == pytest.approx(norms, rel=1e-3), "measured before it is clipped"
    assert found["losses"] == pytest.approx(losses, abs=2e-5)
