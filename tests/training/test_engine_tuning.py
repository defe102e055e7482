"""What is replaced on DeepSpeed's engine for a lone worker does what it must: a plain loop's steps.

`test_export.py` holds the norms of two workers against a plain loop's."""

import json
from pathlib import Path

import pytest
import torch
from ranks import run_on_ranks
from test_training_step import LENGTH, PEAK, make_model, pack, plain_loop, settings
from transformers import AutoModelForCausalLM

from asclepius_ray.artifacts import Folder
from asclepius_ray.training.batches import collate, summed_loss
from asclepius_ray.training.order import step_rows
from asclepius_ray.training.schedule import learning_rate

STEPS = 6


def take_steps(rank: int, folder: str) -> None:
    """The norm of every step's gradient, and its loss."""
    from asclepius_ray.training.checkpoints.adam import reset_moments
    from asclepius_ray.training.checkpoints.writing import CheckpointWriter
    from asclepius_ray.training.engine import start_engine
    from asclepius_ray.training.engine_tuning import gradient_norm
    from asclepius_ray.training.loop import Job, Trainer
    from asclepius_ray.training.loop_state import LoopState

    packed, training = pack(), settings(0, "fp32", 2)
    engine = start_engine(Path(folder) / "model", training)
    writer = CheckpointWriter(engine, Folder(folder), num_kept=1)
    job = Job(Folder(folder), LENGTH, training, seed=1, board=None)
    trainer = Trainer(job, engine, LoopState(), [], writer)
    losses, norms = [], []
    for step in range(STEPS):
        rate = learning_rate(step, STEPS, PEAK, 0.03)
        if step in (0, STEPS // 2):
            reset_moments(engine)
        losses.append(trainer.optimizer_step(packed, step_rows(len(packed), 5, 1, 0, step), rate))
        norms.append(gradient_norm(engine))
    (Path(folder) / "found.json").write_text(json.dumps({"losses": losses, "norms": norms}))


def first_norm(folder: Path) -> float:
    """Of the first step's gradient, by torch alone."""
    model, packed = AutoModelForCausalLM.from_pretrained(folder), pack()
    rows = step_rows(len(packed), 5, 1, 0, 0)
    (summed_loss(model, collate(packed, rows)) / packed.loss_tokens(rows)).backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return float(torch.nn.utils.get_total_norm(gradients))


def test_norm_and_losses_of_a_lone_worker_are_those_of_a_plain_loop(tmp_path: Path) -> None:
    make_model().save_pretrained(tmp_path / "model")
    run_on_ranks(take_steps, 1, str(tmp_path))
    found = json.loads((tmp_path / "found.json").read_text())
    losses, _ = plain_loop(tmp_path / "model")
    assert found["norms"][0] == pytest.approx(first_norm(tmp_path / "model"), rel=1e-4)
    assert found["losses"] == pytest.approx(losses, abs=2e-5)
