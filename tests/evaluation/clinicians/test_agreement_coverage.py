"""95 % intervals hold the truth in 93-97 % of 1,000 simulated studies."""

import numpy as np
import pytest

from asclepius_ray.evaluation.agreement import Agreement, Floats, alpha_of, mean_of, weighted_kappa_of

NUM_SIMULATIONS = 1000
NUM_ANSWERS_OF_THE_TRUTH = 600_000
STRICTNESS = np.array([[0.0], [0.4], [-0.3]])
BOUNDS_OF_GRADES = (-1.0, 0.2, 1.1)


def rate(generator: np.random.Generator, num_notes: int, answers_of_a_note: int, missing: float) -> Floats:
    """Three raters' grades of answers with a latent quality, half of whose variance is the note's."""
    shape = num_notes * answers_of_a_note
    of_note = np.repeat(generator.normal(size=num_notes), answers_of_a_note)
    quality = 0.6 + np.sqrt(0.5) * (of_note + generator.normal(size=shape))
    seen = quality + STRICTNESS + 0.7 * generator.normal(size=(3, shape))
    ratings = 1.0 + sum(seen > bound for bound in BOUNDS_OF_GRADES)
    ratings[generator.random(ratings.shape) < missing] = np.nan
    return ratings


def figures_of(ratings: Floats, notes: list[str], seed: int) -> dict[str, Agreement]:
    return {
        "alpha": alpha_of(ratings, notes, seed),
        "kappa": weighted_kappa_of(ratings[0], ratings[1], notes, seed),
        "mean": mean_of(ratings[0], notes, seed),
    }


@pytest.mark.parametrize(
    ("num_notes", "answers_of_a_note", "missing"),
    [(100, 1, 0.0), (40, 3, 0.2)],
    ids=["a note each", "notes of three, a fifth missing"],
)
def test_intervals_hold_the_truth_as_often_as_they_say(
    num_notes: int, answers_of_a_note: int, missing: float
) -> None:
    many = NUM_ANSWERS_OF_THE_TRUTH // answers_of_a_note
    ratings = rate(np.random.default_rng(1), many, answers_of_a_note, missing)
    truths = true_figures(ratings)
    notes = [str(note) for note in range(num_notes) for _ in range(answers_of_a_note)]
    held = dict.fromkeys(truths, 0)
    for simulation in range(NUM_SIMULATIONS):
        ratings = rate(np.random.default_rng(10_000 + simulation), num_notes, answers_of_a_note, missing)
        for name, found in figures_of(ratings, notes, simulation).items():
            assert found.low is not None
            assert found.high is not None
            held[name] += found.low <= truths[name] <= found.high
    shares = {name: count / NUM_SIMULATIONS for name, count in held.items()}
    assert {name: share for name, share in shares.items() if not 0.93 <= share <= 0.97} == {}


def true_figures(ratings: Floats) -> dict[str, float]:
    """By the definitions, from the shares of the grades: apart from the code under test.

    Of very many answers; alpha's correction for few is nil.
    """
    grades = np.arange(1, 5)
    counts_UV = (ratings[:, :, None] == grades).sum(axis=0).astype(float)
    counts_UV = counts_UV[counts_UV.sum(axis=1) >= 2]
    weights = 1 / (counts_UV.sum(axis=1) - 1)
    observed = (counts_UV * weights[:, None]).T @ counts_UV - np.diag(weights @ counts_UV)
    shares = counts_UV.sum(axis=0) / counts_UV.sum()
    ranks = np.cumsum(shares) - shares / 2
    distances = (ranks[:, None] - ranks) ** 2
    alpha = 1 - (observed / observed.sum() * distances).sum() / (np.outer(shares, shares) * distances).sum()
    both = ~np.isnan(ratings[:2]).any(axis=0)
    first, second = ratings[0, both], ratings[1, both]
    apart = np.var(first) + np.var(second) + (first.mean() - second.mean()) ** 2
    kappa = 1 - np.mean((first - second) ** 2) / apart
    return {"alpha": float(alpha), "kappa": float(kappa), "mean": float(np.nanmean(ratings[0]))}
