"""The training step against a plain torch loop: every ZeRO stage, precision and split of the rows."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from artefacts import pack_rows, write_store
from ranks import run_on_ray_workers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import TrainingError
from asclepius_ray.tokens.rendering import TokenizedExample
from asclepius_ray.training.batches import PackedRows, collate, summed_loss
from asclepius_ray.training.config import PhaseConfig, TrainingConfig
from asclepius_ray.training.phases import Phase, load_phases
from asclepius_ray.training.schedule import learning_rate

pytestmark = pytest.mark.long

VOCABULARY, LENGTH, STEPS, RESET_AT, PEAK = 97, 32, 6, 3, 5e-3
# Between the norms of these steps' gradients: AdamW alone would not notice a wrong scale of all of them.
CLIP = 2.0


def make_documents(count: int = 18) -> list[TokenizedExample]:
    draw = np.random.default_rng(5)
    lengths = draw.integers(3, 20, count).tolist()
    prompts = [1 + length // 2 for length in lengths]
    return [
        TokenizedExample(
            draw.integers(0, VOCABULARY, length).tolist(), [False] * prompt + [True] * (length - prompt)
        )
        for length, prompt in zip(lengths, prompts, strict=True)
    ]


def make_model(tied: bool = True) -> LlamaForCausalLM:
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=48,
        intermediate_size=56,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=LENGTH,
        tie_word_embeddings=tied,
    )
    return LlamaForCausalLM(config)


def pack() -> PackedRows:
    return pack_rows(make_documents(), LENGTH)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    write_store(folder, {"notes/train": make_documents(), "notes/validation": []})
    return folder


def load_phase(store: Path) -> Phase:
    (phase,) = load_phases(store, LENGTH, settings(0, "fp32", 1), seed=1)
    assert phase.total_steps >= STEPS
    return phase


def settings(stage: int, precision: str, micro_batch: int) -> TrainingConfig:
    return TrainingConfig(
        zero_stage=stage,
        precision=precision,
        micro_batch=micro_batch,
        global_batch=5,
        max_gradient_norm=CLIP,
        phases=(PhaseConfig(kind="notes", epochs=4, learning_rate=PEAK),),
    )


def plain_loop(folder: Path, store: Path) -> tuple[list[float], list[float], dict[str, torch.Tensor]]:
    """What the steps must amount to: one process, one batch, the mean over the targets, AdamW.

    The losses, the gradients' norms before they are clipped, and the weights in the end.
    """
    model = AutoModelForCausalLM.from_pretrained(folder)
    phase = load_phase(store)
    losses, norms = [], []
    for step in range(STEPS):
        if step in (0, RESET_AT):
            optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
        packed, rows = phase.batch(step)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, STEPS, PEAK, 0.03)
        optimizer.zero_grad()
        loss = summed_loss(model, collate(packed, rows)) / packed.loss_tokens(rows)
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)))
        optimizer.step()
        losses.append(loss.item())
    assert min(norms) < CLIP < max(norms)
    return losses, norms, model.state_dict()


def losses_of(folder: Path, store: Path, training: TrainingConfig, target: Path) -> list[float]:
    """The same steps by the product's engine, on the process group that is open; exports to `target`."""
    from asclepius_ray.training.checkpoints.adam import reset_moments
    from asclepius_ray.training.checkpoints.reading import restore_newest
    from asclepius_ray.training.checkpoints.writing import CheckpointWriter
    from asclepius_ray.training.export import export_model
    from asclepius_ray.training.loop import Job, Trainer, start_engine
    from asclepius_ray.training.loop_state import LoopState
    from asclepius_ray.training.model import check_documents_are_apart

    engine = start_engine(folder, training)
    check_documents_are_apart(engine.module, engine.device)
    job = Job(Folder(str(folder)), LENGTH, training, seed=1, board=None)
    saved = Folder(str(target / "checkpoint"))
    checkpoints = CheckpointWriter(engine, saved, num_kept=1)
    trainer = Trainer(job, engine, LoopState(), [], checkpoints)
    phase = load_phase(store)

    def take(steps: range) -> list[float]:
        return [
            trainer.optimizer_step(*phase.batch(step), learning_rate(step, STEPS, PEAK, 0.03))
            for step in steps
        ]

    reset_moments(engine)
    losses = take(range(RESET_AT))
    reset_moments(engine)
    losses += take(range(RESET_AT, STEPS - 1))
    with checkpoints:
        checkpoints.save_and_wait(LoopState(total_steps=5))
    first_time = take(range(STEPS - 1, STEPS))
    restored = restore_newest(engine, saved, pytest.fail)
    assert restored is not None
    assert restored.total_steps == 5
    losses += take(range(STEPS - 1, STEPS))
    assert losses[-1:] == first_time, "a loaded checkpoint must go on as the run that saved it"
    whole = AutoModelForCausalLM.from_pretrained(folder)
    for name, buffer in whole.named_buffers():
        # Rotary frequencies rounded to 16 bits would turn the positions of long texts.
        assert torch.equal(engine.module.get_buffer(name), buffer), name
    export_model(engine.module, Folder(str(target)), training)
    if training.zero_stage == 0:
        # Every worker must end, not one of them: the others would wait for it.
        with torch.no_grad():
            next(engine.module.parameters()).fill_(math.nan)
        with pytest.raises(TrainingError, match="the loss is nan after 0 steps"):
            take(range(1))
    engine.destroy()
    return losses


VARIANTS = [
    (0, "fp32", 1),
    (0, "fp32", 3),
    (2, "fp32", 2),
    (2, "bf16", 2),
    (3, "fp32", 2),
    (3, "bf16", 1),
    (0, "bf16", 3),
]


def run_variants(config: dict[str, Any]) -> None:
    """On each of two workers: all variants one after the other."""
    import json
    import os

    import ray.train

    os.environ["DS_ACCELERATOR"] = "cpu"
    torch.set_num_threads(1)
    found = {}
    for stage, precision, micro_batch in VARIANTS:
        name = f"{stage}-{precision}-{micro_batch}"
        target = Path(config["target"]) / name
        training = settings(stage, precision, micro_batch)
        found[name] = losses_of(Path(config["model"]), Path(config["store"]), training, target)
    if ray.train.get_context().get_world_rank() == 0:
        (Path(config["target"]) / "losses.json").write_text(json.dumps(found))


@pytest.fixture(scope="module")
def variants(
    ray_cluster: str, store: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path]:
    """Two workers with gloo and DeepSpeed; losses by variant, and the folder of their exports."""
    import json

    folder = tmp_path_factory.mktemp("variants")
    make_model().save_pretrained(folder / "model")
    paths = {"model": str(folder / "model"), "store": str(store), "target": str(folder)}
    run_on_ray_workers(run_variants, 2, paths, folder)
    return json.loads((folder / "losses.json").read_text()), folder


@pytest.mark.parametrize("name", [f"{stage}-{precision}-{micro}" for stage, precision, micro in VARIANTS])
def test_two_workers_pay_the_loss_of_one_plain_loop(
    variants: tuple[dict[str, Any], Path], store: Path, name: str
) -> None:
    losses, folder = variants
    expected, *_ = plain_loop(folder / "model", store)
    assert expected[0] - expected[-1] > 0.05, "the steps must have moved the model"
    tolerance = 2e-5 if "fp32" in name else 6e-3
    assert losses[name] == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize("name", ["0-fp32-1", "2-fp32-2", "3-fp32-2"])
def test_the_exported_weights_are_those_of_the_plain_loop(
    variants: tuple[dict[str, Any], Path], store: Path, name: str
) -> None:
    _, folder = variants
    exported = AutoModelForCausalLM.from_pretrained(folder / name).state_dict()
    *_, expected = plain_loop(folder / "model", store)
    start = AutoModelForCausalLM.from_pretrained(folder / "model").state_dict()
    assert exported.keys() == expected.keys()
    for key, value in exported.items():
        assert torch.allclose(value, expected[key], atol=1e-4), key
        assert not torch.allclose(value, start[key], atol=1e-4), key


def test_padding_rows_weigh_nothing() -> None:
    model = make_model().eval()
    packed = pack()
    with torch.no_grad():
        assert summed_loss(model, collate(packed, [-1, -1])).item() == 0.0
        padded = summed_loss(model, collate(packed, [0, -1])).item()
        assert padded == pytest.approx(summed_loss(model, collate(packed, [0])).item(), rel=1e-6)
    assert not math.isnan(padded)
