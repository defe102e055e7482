"""Buffers that a model stores with its weights are read, trained with and exported under every ZeRO stage."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ranks import run_on_ranks
from safetensors.torch import load_file, save_file
from test_export import logits_of
from test_training_step import LENGTH, VOCABULARY, make_model
from transformers import AutoModelForCausalLM, Gemma4ForCausalLM, Gemma4TextConfig

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import TrainingError
from asclepius_ray.training.config import PhaseConfig, TrainingConfig

pytestmark = pytest.mark.long

SCALARS = {"model.layers.0.layer_scalar": 0.5, "model.layers.1.layer_scalar": 0.75}
VARIANTS = [(stage, precision) for precision in ("fp32", "bf16") for stage in (0, 1, 2, 3)]
STRAY = "model.layers.0.self_attn.stray.weight"
PASSED_OVER = "model.layers.0.self_attn.rotary_emb.inv_freq"
"""Old files hold it, and transformers passes over it."""
Tensors = dict[str, torch.Tensor]


def save_base(folder: Path) -> None:
    """A model whose layers hold a stored buffer each: Gemma 4's `layer_scalar`."""
    torch.manual_seed(3)
    config = Gemma4TextConfig(
        vocab_size=VOCABULARY,
        hidden_size=48,
        intermediate_size=56,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=12,
        global_head_dim=12,
        max_position_embeddings=LENGTH,
        sliding_window=16,
        layer_types=["sliding_attention", "full_attention"],
        vocab_size_per_layer_input=VOCABULARY,
        hidden_size_per_layer_input=0,
    )
    model = Gemma4ForCausalLM(config)
    for name, value in SCALARS.items():
        model.get_buffer(name).fill_(value)
    model.save_pretrained(folder)


def settings(stage: int, precision: str) -> TrainingConfig:
    phase = PhaseConfig(kind="notes", epochs=1)
    return TrainingConfig(
        zero_stage=stage, precision=precision, global_batch=4, micro_batch=2, phases=(phase,)
    )


def start_and_export(rank: int, folder: str) -> None:
    """On each rank: the logits under every stage and what is exported; then files that do not fit."""
    from asclepius_ray.training.engine import start_engine
    from asclepius_ray.training.export import export_model

    for stage, precision in VARIANTS:
        training = settings(stage, precision)
        engine = start_engine(Path(folder) / "base", training)
        target = Path(folder) / f"{stage}-{precision}"
        export_model(engine.module, Folder(str(target)), training)
        engine.eval()
        torch.save(logits_of(engine), target / f"logits-{rank}.pt")
        engine.destroy()
    refusals = {}
    for name in ("stray", "torn", "old"):
        try:
            start_engine(Path(folder) / name, settings(3, "fp32"))
        except TrainingError as error:
            refusals[name] = str(error)
    (Path(folder) / f"refusals-{rank}.json").write_text(json.dumps(refusals))


def change_tensors(folder: Path, change: Callable[[Tensors], Tensors]) -> None:
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("buffers")
    for name in ("base", "stray", "torn"):
        save_base(folder / name)
    make_model().save_pretrained(folder / "old")
    change_tensors(folder / "stray", lambda tensors: tensors | {STRAY: torch.zeros(2)})
    change_tensors(folder / "old", lambda tensors: tensors | {PASSED_OVER: torch.zeros(2)})
    change_tensors(folder / "torn", lambda tensors: {k: v for k, v in tensors.items() if k not in SCALARS})
    run_on_ranks(start_and_export, 2, str(folder))
    return folder


@pytest.mark.parametrize(("stage", "precision"), VARIANTS)
def test_a_stored_buffer_is_read_and_exported_under_every_stage(
    folder: Path, stage: int, precision: str
) -> None:
    exported = load_file(folder / f"{stage}-{precision}" / "model.safetensors")
    base = load_file(folder / "base" / "model.safetensors")
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    for name, value in SCALARS.items():
        assert exported[name].item() == value
    for name, tensor in exported.items():
        assert torch.equal(tensor, base[name].to(dtype)), name
    expected = logits_of(AutoModelForCausalLM.from_pretrained(folder / "base", dtype=dtype).eval())
    for rank in range(2):
        found = torch.load(folder / f"{stage}-{precision}" / f"logits-{rank}.pt")
        assert torch.allclose(found, expected, atol=1e-5 if precision == "fp32" else 1e-2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "stray",
            rf"files hold, for no part of the model, 1 tensor\(s\), the first is {STRAY}; set .*zero_stage",
        ),
        ("torn", r"files lack 2 tensor\(s\), the first is model\.layers\.0\.layer_scalar; set .*zero_stage"),
    ],
)
def test_files_that_do_not_fit_are_refused_by_every_worker(folder: Path, name: str, message: str) -> None:
    for rank in range(2):
        assert re.search(message, json.loads((folder / f"refusals-{rank}.json").read_text())[name])


def test_what_transformers_passes_over_is_no_reason_to_refuse_a_model(folder: Path) -> None:
    assert "old" not in json.loads((folder / "refusals-0.json").read_text())
