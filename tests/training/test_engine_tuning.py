"""What is replaced on DeepSpeed's engine for a lone worker does what it must: a plain loop's steps.

`test_export.py` holds the norms of two workers against a plain loop's."""

import json
from pathlib import Path

import pytest
import torch
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
from transformers import AutoModelForCausalLM

from asclepius_ray.artifacts import Folder
from asclepius_ray.training.schedule import learning_rate

pytestmark = pytest.mark.whole

STAGES = (0, 1, 2, 3)


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


def start_with_decay(folder: str) -> None:
    """By how much the masters of each stage differ from the weights of the model before the first step."""
    from asclepius_ray.training.checkpoints.pieces import owned_pieces
    from asclepius_ray.training.engine import start_engine

    model = AutoModelForCausalLM.from_pretrained(Path(folder) / "model", dtype=torch.bfloat16)
    differences = {}
    for stage in STAGES:
        training = settings(stage, "bf16", 5).model_copy(update={"weight_decay": 0.1})
        engine = start_engine(Path(folder) / "model", training)
        pieces = owned_pieces(engine)
        assert sum(piece.fragment.size for piece in pieces) == model.num_parameters()
        differences[stage] = max(
            float((piece.master - model.get_parameter(piece.fragment.name).flatten()).abs().max())
            for piece in pieces
        )
        engine.destroy()
    (Path(folder) / "differences.json").write_text(json.dumps(differences))


def run_engines(rank: int, folder: str) -> None:
    take_steps(rank, folder)
    start_with_decay(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    make_model().save_pretrained(folder / "model")
    write_store(folder / "store", {"notes/train": make_documents(), "notes/validation": []})
    run_on_ranks(run_engines, 1, str(folder))
    return folder


def test_norm_and_losses_of_a_lone_worker_are_those_of_a_plain_loop(folder: Path) -> None:
    found = json.loads((folder / "found.json").read_text())
    losses, norms, _ = plain_loop(folder / "model", folder / "store")
    assert found["norms"] == pytest.approx(norms, rel=1e-3), "measured before it is clipped"
    assert found["losses"] == pytest.approx(losses, abs=2e-5)


@pytest.mark.parametrize("stage", STAGES)
def test_no_weight_decays_before_the_first_step(folder: Path, stage: int) -> None:
    assert json.loads((folder / "differences.json").read_text())[str(stage)] == 0
