"""Rows laid end to end: the borders of the documents, and the same logits as with a mask.

torch's kernel runs on GPUs only (tests/gpu); here a plain one of the same arguments stands in for it, which
attends within the borders alone and so shows whether they are right.
"""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from test_training_step import make_model, pack
from transformers import AttentionInterface, AutoModelForCausalLM

from asclepius_ray.errors import TrainingError
from asclepius_ray.training.batches import Batch, collate, summed_loss
from asclepius_ray.training.model import check_documents_are_apart
from asclepius_ray.training.varlen import attend_by_documents, document_borders

REFERENCE = "reference-by-borders"


def attend_within_borders(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """One document after the other, by torch's common attention."""
    assert attention_mask is None
    assert query.shape[0] == 1
    borders = options["cu_seq_lens_q"].tolist()
    assert max(end - start for start, end in itertools.pairwise(borders)) == options["max_length_q"]
    parts = [
        torch.nn.functional.scaled_dot_product_attention(
            query[:, :, start:end],
            key[:, :, start:end],
            value[:, :, start:end],
            is_causal=True,
            enable_gqa=True,
            scale=options["scaling"],
        )
        for start, end in itertools.pairwise(borders)
    ]
    return torch.cat(parts, dim=2).transpose(1, 2), None


AttentionInterface.register(REFERENCE, attend_within_borders)


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
    masked, laid = open_model(folder, "sdpa"), open_model(folder, REFERENCE)
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
    laid = open_model(folder, REFERENCE)
    attend_by_documents(laid)
    check_documents_are_apart(laid, torch.device("cpu"))
    whole = open_model(folder, REFERENCE)
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


@pytest.mark.parametrize(("option", "value"), [("softcap", 30.0), ("s_aux", torch.ones(4)), ("dropout", 0.1)])
def test_what_the_kernel_does_not_know_is_refused(option: str, value: object) -> None:
    attention = AttentionInterface()["varlen"]
    states = torch.zeros(1, 4, 6, 8)
    with pytest.raises(TrainingError, match=r'attention = "varlen".*"sdpa"'):
        attention(torch.nn.Module(), states, states, states, None, **{option: value})
