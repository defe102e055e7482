"""Packing changes nothing but speed: loss, gradients and the curve are those of the documents alone."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from artefacts import write_store
from ranks import run_on_ray_workers
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import ModelOutput

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import TrainingError
from asclepius_ray.tokens.rendering import TokenizedExample
from asclepius_ray.training.batches import PackedRows, collate, summed_loss
from asclepius_ray.training.config import PhaseConfig, TrainingConfig
from asclepius_ray.training.phases import Phase, load_phases
from asclepius_ray.training.schedule import learning_rate

pytestmark = pytest.mark.whole

VOCABULARY, LENGTH, STEPS, GLOBAL_BATCH, PEAK = 97, 48, 8, 8, 5e-3
# (workers, micro-batch, ZeRO stage) → accumulation; those with three rows of weight zero and more are last.
SPLITS = {(1, 8, 2): 1, (2, 4, 2): 1, (2, 2, 2): 2, (2, 2, 3): 2, (1, 3, 0): 3, (2, 3, 0): 2, (2, 16, 2): 1}


def make_model() -> LlamaForCausalLM:
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=48,
        intermediate_size=56,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=LENGTH,
        initializer_range=0.1,
    )
    return LlamaForCausalLM(config)


def make_documents(count: int = 70) -> list[TokenizedExample]:
    draw = np.random.default_rng(5)
    found = []
    for length in draw.integers(3, 30, count).tolist():
        prompt = 1 + int(draw.integers(0, length - 1))
        mask = [False] * prompt + [True] * (length - prompt)
        found.append(TokenizedExample(draw.integers(0, VOCABULARY, length).tolist(), mask))
    return found


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    write_store(folder, {"notes/train": make_documents(), "notes/validation": []})
    return folder


def settings(micro_batch: int = 2, stage: int = 0) -> TrainingConfig:
    return TrainingConfig(
        zero_stage=stage,
        micro_batch=micro_batch,
        global_batch=GLOBAL_BATCH,
        phases=(PhaseConfig(kind="notes", epochs=3, learning_rate=PEAK),),
    )


def load_phase(store: Path) -> Phase:
    (phase,) = load_phases(store, LENGTH, settings(), seed=1)
    assert phase.steps_per_epoch < STEPS <= phase.total_steps, "the last step of an epoch must be among them"
    return phase


def loss_alone(model: LlamaForCausalLM, packed: PackedRows, number: int) -> torch.Tensor:
    """The summed loss of one document by transformers' own reckoning, called as everybody calls it."""
    ids, mask = (torch.tensor(np.array(part)) for part in packed.documents.tokens(number))
    labels = ids.long().masked_fill(~mask, -100)
    mean: torch.Tensor = model(input_ids=ids.long()[None], labels=labels[None]).loss
    return mean * mask.sum()


def gradients(model: LlamaForCausalLM) -> torch.Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


def test_packed_rows_have_the_loss_and_the_gradients_of_their_documents_alone(store: Path) -> None:
    packed, rows = load_phase(store).batch(0)
    numbers = [number for row in rows for number in packed.packing.row(row).tolist()]
    assert len(numbers) >= 2 * len(rows)
    targets = packed.loss_tokens(rows)
    model = make_model()
    together = summed_loss(model, collate(packed, rows)) / targets
    together.backward()
    packed_gradients = gradients(model)
    model.zero_grad()
    alone = sum((loss_alone(model, packed, number) for number in numbers), torch.zeros(())) / targets
    alone.backward()
    assert together.item() == pytest.approx(alone.item(), abs=1e-5)
    assert packed_gradients.norm() > 0.1
    assert torch.allclose(packed_gradients, gradients(model), rtol=0, atol=1e-5)


def test_packed_documents_have_the_logits_they_have_alone(store: Path) -> None:
    model = make_model().eval()
    packed, rows = load_phase(store).batch(0)
    batch = collate(packed, rows)
    arguments = {"position_ids": batch.position_ids, "attention_mask": None, "use_cache": False}
    with torch.no_grad():
        together = model(input_ids=batch.input_ids, **arguments).logits
        for line, row in enumerate(rows):
            start = 0
            for number in packed.packing.row(row):
                ids = torch.tensor(packed.documents.tokens(number)[0][None].astype(np.int64))
                alone = model(input_ids=ids).logits[0]
                assert torch.allclose(together[line, start : start + len(alone)], alone, atol=1e-5)
                start += len(alone)


class CarelessModel(torch.nn.Module):
    """Calls the model as one does without knowing of the trap."""

    def __init__(self, model: LlamaForCausalLM, way: str) -> None:
        super().__init__()
        self.model, self.config, self.way = model, model.config, way

    def forward(self, **arguments: Any) -> ModelOutput:
        if self.way == "no position ids":
            del arguments["position_ids"]
        elif self.way == "cache":
            arguments["use_cache"] = True
        elif self.way == "mask of ones":
            arguments["attention_mask"] = torch.ones_like(arguments["input_ids"])
        elif self.way == "borders of the first row":
            positions = arguments["position_ids"]
            arguments["position_ids"] = positions[:1].expand_as(positions)
        elif self.way == "one row alone" and len(arguments["input_ids"]) > 1:
            del arguments["position_ids"]
        return self.model(**arguments)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize(
    "way", ["no position ids", "cache", "mask of ones", "borders of the first row", "one row alone"]
)
def test_a_model_whose_documents_see_each_other_is_refused(way: str, precision: torch.dtype) -> None:
    from asclepius_ray.training.model import check_documents_are_apart

    model = make_model().to(precision).train()
    check_documents_are_apart(CarelessModel(model, "none"), torch.device("cpu"))
    with pytest.raises(TrainingError, match="see each other"):
        check_documents_are_apart(CarelessModel(model, way), torch.device("cpu"))
    assert model.training


def test_a_model_that_gives_no_numbers_is_refused() -> None:
    from asclepius_ray.training.model import check_documents_are_apart

    model = make_model()
    with torch.no_grad():
        model.lm_head.weight.fill_(torch.nan)
    with pytest.raises(TrainingError, match="no number"):
        check_documents_are_apart(model, torch.device("cpu"))


def curve_of(model: Path, store: Path, training: TrainingConfig) -> tuple[int, list[float]]:
    """The accumulation steps and the losses of the product's engine on the open process group."""
    from asclepius_ray.training.checkpoints.adam import reset_moments
    from asclepius_ray.training.checkpoints.writing import CheckpointWriter
    from asclepius_ray.training.engine import start_engine
    from asclepius_ray.training.loop import Job, Trainer
    from asclepius_ray.training.loop_state import LoopState

    engine = start_engine(model, training)
    job = Job(Folder(str(model)), LENGTH, training, seed=1, board=None)
    writer = CheckpointWriter(engine, Folder(str(model)), num_kept=1)
    trainer, phase = Trainer(job, engine, LoopState(), [], writer), load_phase(store)
    reset_moments(engine)
    losses = [
        trainer.optimizer_step(*phase.batch(step), learning_rate(step, STEPS, PEAK, 0.03))
        for step in range(STEPS)
    ]
    accumulation = trainer.accumulation
    engine.destroy()
    return accumulation, losses


def run_splits(config: dict[str, Any]) -> None:
    """On each worker of a group: all splits for so many workers, one after the other."""
    import os

    import ray.train

    os.environ["DS_ACCELERATOR"] = "cpu"
    torch.set_num_threads(1)
    found = {}
    for workers, micro_batch, stage in SPLITS:
        if workers == config["workers"]:
            training = settings(micro_batch, stage)
            curve = curve_of(Path(config["model"]), Path(config["store"]), training)
            found[f"{workers}-{micro_batch}-{stage}"] = curve
    if ray.train.get_context().get_world_rank() == 0:
        Path(config["target"]).write_text(json.dumps(found))


@pytest.fixture(scope="module")
def curves(
    ray_cluster: str, store: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[int, list[float]]]:
    """Each split's accumulation steps and losses; a group of one worker and one of two."""
    folder = tmp_path_factory.mktemp("splits")
    make_model().save_pretrained(folder / "model")
    found = {}
    for workers in (1, 2):
        target = folder / f"{workers}.json"
        paths = {"model": str(folder / "model"), "store": str(store), "target": str(target)}
        run_on_ray_workers(run_splits, workers, {**paths, "workers": workers}, folder)
        found |= json.loads(target.read_text())
    return found


def test_every_split_of_the_same_rows_has_the_same_loss_curve(
    curves: dict[str, tuple[int, list[float]]], store: Path
) -> None:
    assert {name: accumulation for name, (accumulation, _) in curves.items()} == {
        f"{workers}-{micro_batch}-{stage}": accumulation
        for (workers, micro_batch, stage), accumulation in SPLITS.items()
    }
    _, expected = curves["1-8-2"]
    assert expected[0] - expected[-1] > 0.2, "the steps must have moved the model"
    for name, (_, losses) in curves.items():
        assert losses == pytest.approx(expected, abs=1e-4), name
