"""Rows laid end to end: the borders of the documents, and the same logits as with a mask.

torch's kernel runs on GPUs only (tests/gpu); here the documents are attended to one after the other.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from test_training_step import VOCABULARY, make_model, pack
from transformers import AttentionInterface, AutoModelForCausalLM, MistralConfig

from asclepius_ray.errors import TrainingError
from asclepius_ray.training.batches import Batch, collate, summed_loss
from asclepius_ray.training.model import check_documents_are_apart
from asclepius_ray.training.varlen import VARLEN, attend_by_documents, document_borders


def open_model(folder: Path, attention: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation=attention)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("varlen")
    make_model().save_pretrained(path)
    return path


def batch_of(rows: list[int]) -> Batch:
    return collate(pack(), rows)


def test_borders_stand_where_positions_begin_anew() -> None:
    positions = torch.tensor([[0, 1, 2, 0, 1], [0, 0, 1, 2, 3]])
    borders, longest = document_borders(positions)
    assert borders.tolist() == [0, 3, 5, 6, 10]
    assert borders.dtype == torch.int32
    assert longest == 4


def test_rows_laid_end_to_end_have_the_loss_and_gradients_of_rows_with_a_mask(folder: Path) -> None:
    masked, laid = open_model(folder, "sdpa"), open_model(folder, VARLEN)
    attend_by_documents(laid)
    batch = batch_of([0, 1, 2])
    assert len(document_borders(batch.position_ids)[0]) > 5
    losses = [summed_loss(model, batch) for model in (masked, laid)]
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=1e-6)
    for loss in losses:
        loss.backward()
    for (name, one), other in zip(masked.named_parameters(), laid.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, atol=1e-4), name


def test_the_probe_holds_for_it_too(folder: Path) -> None:
    laid = open_model(folder, VARLEN)
    attend_by_documents(laid)
    check_documents_are_apart(laid, torch.device("cpu"))
    whole = open_model(folder, VARLEN)
    forward = whole.forward

    def forget_the_borders(*, input_ids: torch.Tensor, position_ids: torch.Tensor, **arguments: Any) -> Any:
        ends = torch.tensor([0, input_ids.numel()], dtype=torch.int32)
        output = forward(
            input_ids=input_ids.reshape(1, -1),
            position_ids=position_ids.reshape(1, -1),
            cu_seq_lens_q=ends,
            max_length_q=input_ids.numel(),
            **arguments,
        )
        output.logits = output.logits.reshape(*input_ids.shape, -1)
        return output

    whole.forward = forget_the_borders
    with pytest.raises(TrainingError, match="see each other"):
        check_documents_are_apart(whole, torch.device("cpu"))


@pytest.mark.parametrize(("option", "value"), [("softcap", 30.0), ("s_aux", torch.ones(4))])
def test_what_the_kernel_does_not_know_is_refused(option: str, value: object) -> None:
    attention = AttentionInterface()["varlen"]
    states = torch.zeros(1, 4, 6, 8)
    with pytest.raises(TrainingError, match=r'attention = "varlen".*"sdpa"'):
        attention(torch.nn.Module(), states, states, states, None, **{option: value})


def test_a_window_is_kept_to_within_each_document(tmp_path: Path) -> None:
    config = MistralConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=3,
    )
    torch.manual_seed(1)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    masked, laid = open_model(tmp_path, "sdpa"), open_model(tmp_path, VARLEN)
    attend_by_documents(laid)
    batch = batch_of([0, 1, 2])
    borders, longest = document_borders(batch.position_ids)
    assert longest > 3
    assert len(borders) > 5
    assert summed_loss(laid, batch).item() == pytest.approx(summed_loss(masked, batch).item(), rel=1e-6)
    unbounded = AutoModelForCausalLM.from_pretrained(
        tmp_path, sliding_window=None, attn_implementation="sdpa"
    )
    assert summed_loss(unbounded, batch).item() != pytest.approx(summed_loss(laid, batch).item(), rel=1e-6)
