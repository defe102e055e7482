"""torch's kernel for documents of many lengths, on a real GPU: the same loss as with a mask, at less cost."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from asclepius_ray.artifacts import Folder
from asclepius_ray.tokens.packing import pack_in_order
from asclepius_ray.tokens.rendering import TokenizedExample
from asclepius_ray.tokens.store import open_documents, write_index, write_shard
from asclepius_ray.training.batches import PackedRows, collate, summed_loss
from asclepius_ray.training.config import TrainingConfig
from asclepius_ray.training.machine import this_machine
from asclepius_ray.training.model import check_documents_are_apart, load_model
from asclepius_ray.training.varlen import attend_by_documents

LENGTH, VOCABULARY = 512, 1000

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(this_machine().compute_capability < 8, reason="needs a GPU from Ampere on"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=LENGTH,
    )
    path = tmp_path_factory.mktemp("gpu")
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(path)
    return path


def pack(folder: Path) -> PackedRows:
    draw = np.random.default_rng(3)
    documents = [
        TokenizedExample(draw.integers(0, VOCABULARY, length).tolist(), [True] * length)
        for length in draw.integers(20, 200, 24).tolist()
    ]
    store = Folder(str(folder))
    write_index(store, "notes", "train", [write_shard(store, "notes", "train", 0, documents)])
    found = open_documents(folder, "notes", "train")
    return PackedRows(found, pack_in_order(found.index.tokens, LENGTH))


def open_model(folder: Path, attention: str) -> Any:
    training = TrainingConfig(use_gpu=True, precision="bf16", attention=attention)
    model = load_model(folder, training)
    if attention != "sdpa":
        attend_by_documents(model)
    return model


@pytest.mark.parametrize("attention", ["varlen", "flash_attention_2"])
def test_documents_are_apart_and_the_loss_is_that_of_the_mask(
    folder: Path, tmp_path: Path, attention: str
) -> None:
    if attention == "flash_attention_2" and not this_machine().has_flash_attn:
        pytest.skip("the package flash-attn is not installed")
    laid, masked = open_model(folder, attention), open_model(folder, "sdpa")
    exact = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to("cuda")
    check_documents_are_apart(laid, torch.device("cuda"))
    packed = pack(tmp_path)
    batch = collate(packed, [0, 1, 2]).to(torch.device("cuda"))
    expected = summed_loss(exact, batch).item()
    tolerance = 2 * abs(summed_loss(masked, batch).item() - expected) + 1e-4 * expected
    loss = summed_loss(laid, batch)
    assert loss.item() == pytest.approx(expected, abs=tolerance)
    loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in laid.parameters())
