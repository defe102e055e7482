"""What is served is what was trained: weights that are not those of the export do not start."""

from pathlib import Path

import pytest
import torch
from served_models import save_tiny_model
from transformers import LlamaForCausalLM

from asclepius_ray.errors import ServingError
from asclepius_ray.serving.config import ServingConfig
from asclepius_ray.serving.engines.logits_check import check_logits
from asclepius_ray.serving.engines.transformers_engine import TransformersEngine
from asclepius_ray.tokens.reference_logits import REFERENCE_NAME, pack_reference, reference_rows


def store_logits(folder: Path, dtype: torch.dtype) -> None:
    model = LlamaForCausalLM.from_pretrained(folder, dtype=dtype)
    with torch.no_grad():
        logits = model(reference_rows(model.config.vocab_size), use_cache=False).logits[:, -1]
    (folder / REFERENCE_NAME).write_bytes(pack_reference(logits))


@pytest.mark.parametrize("trained", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_the_trained_model_starts_and_another_one_does_not(tmp_path: Path, trained: torch.dtype) -> None:
    folder = save_tiny_model(tmp_path / "model", seed=1)
    store_logits(folder, trained)
    # A CPU serves in 32 bits whatever the training was in.
    served = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    check_logits(served, str(folder))
    other = LlamaForCausalLM.from_pretrained(save_tiny_model(tmp_path / "other", seed=2))
    with pytest.raises(ServingError, match="does not say what the trained model said") as refused:
        check_logits(other, str(folder))
    assert "\n" not in str(refused.value)


def test_a_small_change_of_the_weights_is_noticed(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path, seed=1)
    store_logits(folder, torch.float32)
    changed = LlamaForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        changed.model.layers[1].mlp.down_proj.weight.mul_(1.05)
    with pytest.raises(ServingError, match="weights are not those of the export"):
        check_logits(changed, str(folder))


def test_the_engine_checks_what_it_loads(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "model", seed=1)
    store_logits(folder, torch.float32)
    other = save_tiny_model(tmp_path / "other", seed=2)
    (folder / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    with pytest.raises(ServingError, match="weights are not those of the export"):
        TransformersEngine(str(folder), frozenset(), ServingConfig())


def test_a_model_without_stored_logits_starts(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path, seed=1)
    check_logits(LlamaForCausalLM.from_pretrained(folder), str(folder))
