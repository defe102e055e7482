"""Perplexities of a set of texts: the ratio of sums, and an interval that treats texts as drawn."""

import numpy as np
import pytest

from asclepius_ray.errors import EvaluationError
from asclepius_ray.evaluation.realism_figures import perplexity, summarize_texts


def _texts(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Texts of unlike lengths; the longer ones are a little likelier, as real ones are."""
    units = rng.integers(20, 400, count).astype(float)
    nats = units * (2.0 - 0.001 * units + rng.normal(0, 0.2, count))
    return nats, units


def test_a_long_text_weighs_more_than_a_short_one() -> None:
    found = perplexity(np.array([100.0, 3.0]), np.array([100.0, 1.0]), seed=1)
    assert found["value"] == pytest.approx(np.exp(103 / 101))
    assert found["n"] == 2


def test_the_interval_holds_the_truth_in_95_of_100_simulations() -> None:
    rng = np.random.default_rng(11)
    nats, units = _texts(1_000_000, rng)
    truth = np.exp(nats.sum() / units.sum())
    simulations = 400
    held = 0
    for seed in range(simulations):
        found = perplexity(*_texts(80, rng), seed=seed)
        held += found["low"] <= truth <= found["high"]
    # 400 simulations: three standard errors are 3.3 points.
    assert 0.917 <= held / simulations <= 0.983


def test_the_interval_is_a_function_of_the_seed() -> None:
    nats, units = _texts(50, np.random.default_rng(2))
    first = perplexity(nats, units, seed=5)
    assert first == perplexity(nats, units, seed=5)
    assert first != perplexity(nats, units, seed=6)
    assert first["low"] < first["value"] < first["high"]


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_texts_have_no_interval(count: int) -> None:
    found = perplexity(np.full(count, 10.0), np.full(count, 5.0), seed=1)
    assert (found["low"], found["high"], found["n"]) == (None, None, count)
    assert found["value"] == (pytest.approx(np.exp(2)) if count else None)


def test_texts_that_are_all_alike_have_an_interval_without_width() -> None:
    found = perplexity(np.array([4.0, 8.0, 2.0]), np.array([2.0, 4.0, 1.0]), seed=1)
    assert found["low"] == found["value"] == found["high"] == pytest.approx(np.exp(2))


def test_what_is_larger_than_a_number_can_be_is_null() -> None:
    found = perplexity(np.array([2e3, 3e3, 1e3]), np.array([1.0, 1.0, 1.0]), seed=1)
    assert found["value"] is None
    assert found["high"] is None


def test_a_text_without_a_token_to_score_is_skipped() -> None:
    scores = np.array([[10.0, 5, 4], [0.0, 0, 1], [20.0, 8, 6]])
    entry = summarize_texts("notes", "real", scores, num_unreadable=2, seed=1)
    assert (entry["texts"], entry["skipped"], entry["tokens"], entry["words"]) == (2, 3, 13, 10)
    assert entry["perplexity_word"]["value"] == pytest.approx(np.exp(30 / 10))


def test_a_loss_that_is_not_a_number_is_an_error() -> None:
    scores = np.array([[10.0, 5, 4], [np.nan, 3, 1]])
    with pytest.raises(EvaluationError, match=r"1 text\(s\) of 'notes' a loss that is not a number"):
        summarize_texts("notes", "real", scores, 0, seed=1)
