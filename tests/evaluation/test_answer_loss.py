"""The answer loss against transformers' own, and the interval of the paired difference."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from asclepius_ray.artifacts import Folder
from asclepius_ray.evaluation.answer_loss import (
    RowLoss,
    measure_answer_loss,
    paired_difference,
    summarize_loss,
)
from asclepius_ray.evaluation.test_set import read_items
from asclepius_ray.tokens.rendering import prompt_ids, render_example

SEQUENCE_LENGTH = 512


def test_the_loss_is_that_of_the_answer_tokens_alone(ray_cluster: str, finished_training: Folder) -> None:
    items = read_items(finished_training.child("dataset"), limit=3)
    losses = measure_answer_loss(finished_training, ["trained", "untrained"], items, SEQUENCE_LENGTH, False)
    path = finished_training.local_path / "model"
    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModelForCausalLM.from_pretrained(path)
    assert len(losses["trained"]) == len(items) == 3
    for item, loss in zip(items, losses["trained"], strict=True):
        example = render_example(tokenizer, item.note, item.question, item.reference, SEQUENCE_LENGTH)
        assert example is not None
        num_prompt = len(prompt_ids(tokenizer, item.note, item.question))
        labels = [-100] * num_prompt + example.input_ids[num_prompt:]
        expected = model(torch.tensor([example.input_ids]), labels=torch.tensor([labels])).loss
        assert loss.mean_nats == pytest.approx(expected.item(), rel=1e-5)
        assert loss.num_tokens == len(example.input_ids) - num_prompt
    assert losses["trained"] != losses["untrained"]


def test_a_row_that_does_not_fit_is_counted_and_in_no_mean(
    ray_cluster: str, finished_training: Folder
) -> None:
    items = read_items(finished_training.child("dataset"), limit=2)
    losses = measure_answer_loss(finished_training, ["trained"], items, 32, False)
    summary = summarize_loss(losses, ["a", "b"], seed=1)["models"]["trained"]
    assert summary == {"mean": None, "rows": 0, "rows_too_long": 2, "answer_tokens": 0}


def test_the_difference_is_paired_row_by_row() -> None:
    untrained = [RowLoss(value, 5) for value in (1.0, 5.0, 9.0) * 4] + [RowLoss(None, 0)]
    trained = [RowLoss(value, 5) for value in (0.8, 4.7, 8.9) * 4] + [RowLoss(2.0, 5)]
    notes = [str(row) for row in range(13)]
    difference = summarize_loss({"trained": trained, "untrained": untrained}, notes, 1)["difference"]
    assert difference["n"] == 12
    assert difference["mean"] == pytest.approx(-0.2)
    # The rows differ by 4 from each other, the pairs by 0.1: only a paired interval is this narrow.
    assert -0.35 < difference["low"] < difference["high"] < -0.05


def test_the_interval_is_repeatable_and_holds_the_mean() -> None:
    values = list(np.random.default_rng(3).normal(-1, 2, 40))
    notes = [str(row) for row in range(40)]
    first = paired_difference(values, notes, seed=5)
    assert first == paired_difference(values, notes, seed=5)
    assert first["low"] < first["mean"] < first["high"]


def test_rows_of_one_note_are_one_observation() -> None:
    values = [*np.random.default_rng(3).normal(-1, 2, 20)]
    alone = paired_difference(values, [str(row) for row in range(20)], seed=5)
    four_times = paired_difference(values * 4, [str(row) for row in range(20)] * 4, seed=5)
    assert four_times["high"] - four_times["low"] == pytest.approx(alone["high"] - alone["low"], rel=0.15)


@pytest.mark.parametrize("values", [[], [0.5]], ids=["no pair", "one pair"])
def test_fewer_than_two_pairs_have_no_interval(values: list[float]) -> None:
    difference = paired_difference(values, ["a"] * len(values), seed=1)
    assert difference["low"] is None
    assert difference["n"] == len(values)
