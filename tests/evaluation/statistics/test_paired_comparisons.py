"""Paired comparisons: a p value that is wrong as often as it says, Holm's correction, wins and losses."""

import numpy as np
import pytest
from numpy.typing import NDArray
from simulated_scores import draw_notes, names_of

from asclepius_ray.errors import EvaluationError
from asclepius_ray.evaluation.judging import GRADES
from asclepius_ray.evaluation.statistics.comparisons import (
    adjust_by_holm,
    compare_pairs,
    count_wins,
    sign_flip_p,
)
from asclepius_ray.evaluation.statistics.item_scores import ItemScores
from asclepius_ray.evaluation.statistics.notes import sum_by_note

SIMULATIONS = 1000

# Darwin's maize, crossed minus self-fertilized, in eighths of an inch. Fisher, The Design of Experiments
# (1935), section 21: of the 2**15 patterns of signs 1726 have a sum as far from 0 as the one seen.
DARWIN = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]


def _scores(grades_IM: list[list[int | None]], notes: list[str] | None = None) -> ItemScores:
    counts = np.zeros((len(grades_IM), len(grades_IM[0]), len(GRADES)), dtype=np.int64)
    for row, grades in enumerate(grades_IM):
        for column, grade in enumerate(grades):
            if grade is not None:
                counts[row, column, grade - 1] = 1
    ids = tuple(str(row) for row in range(len(grades_IM)))
    models = tuple("abcdefgh"[: len(grades_IM[0])])
    return ItemScores(models, ids, tuple(notes or ids), ("task",) * len(ids), counts)


def _differences_of_equal_models(
    num_notes: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The differences of the items, and their sums by note."""
    notes = draw_notes(num_notes, rng)
    moved = rng.normal(0, 0.8, (2, num_notes))[:, notes] + rng.normal(0, 0.6, (2, len(notes)))
    grades = np.clip(np.rint(2.8 + moved), 1, 4)
    differences = grades[0] - grades[1]
    return differences, sum_by_note(differences, names_of(notes)).sums


def test_two_equal_models_differ_in_5_of_100_tables_and_more_often_when_notes_are_ignored() -> None:
    rng = np.random.default_rng(11)
    studies = [_differences_of_equal_models(25, rng) for _ in range(SIMULATIONS)]
    wrong = np.mean([sign_flip_p(by_note, seed) < 0.05 for seed, (_, by_note) in enumerate(studies)])
    assert 0.03 <= wrong <= 0.07
    ignored = np.mean([sign_flip_p(by_item, seed) < 0.05 for seed, (by_item, _) in enumerate(studies[:300])])
    assert ignored > 0.12


def test_few_notes_are_wrong_no_more_often_than_they_say() -> None:
    rng = np.random.default_rng(12)
    p_values = np.array(
        [sign_flip_p(_differences_of_equal_models(9, rng)[1], seed) for seed in range(SIMULATIONS)]
    )
    assert 0.02 <= (p_values < 0.05).mean() <= 0.07  # equal sums tie, so a small p is a little rarer
    assert 0.4 <= (p_values < 0.5).mean() <= 0.55


def test_a_published_exact_p_value_is_reproduced() -> None:
    assert sign_flip_p(np.array(DARWIN, dtype=float), seed=7) == 1726 / 2**15


def test_sums_that_tie_count_as_ties_also_where_floats_cannot_write_them() -> None:
    rng = np.random.default_rng(16)
    for num_notes in (8, 12, 30):
        wholes = rng.integers(-4, 5, num_notes).astype(float)
        assert sign_flip_p(wholes / 3, seed=7) == sign_flip_p(wholes, seed=7)
        assert sign_flip_p(wholes * 0.1, seed=7) == sign_flip_p(wholes, seed=7)


def test_drawn_signs_come_near_all_signs() -> None:
    sixteen = np.array([*DARWIN, 1e-3])  # one note more than all patterns are tried for; it moves nothing
    assert sign_flip_p(sixteen, seed=7) == pytest.approx(1726 / 2**15, abs=0.006)


def test_p_is_never_0() -> None:
    assert sign_flip_p(np.ones(500), seed=7) == 1 / 10_000


def test_a_judge_that_always_says_4_shows_no_difference() -> None:
    for pair in compare_pairs(_scores([[4, 4, 4]] * 30), seed=7):
        assert (pair.difference, pair.low, pair.high) == (0.0, 0.0, 0.0)
        assert (pair.p, pair.p_adjusted) == (1.0, 1.0)


def test_a_real_difference_is_found_and_its_interval_excludes_0() -> None:
    rng = np.random.default_rng(13)
    rows = [[int(a), int(min(a + (index % 3 > 0), 4))] for index, a in enumerate(rng.integers(1, 4, 90))]
    (pair,) = compare_pairs(_scores(rows, [str(index // 3) for index in range(90)]), seed=7)
    assert (pair.a, pair.b, pair.n, pair.notes) == ("a", "b", 90, 30)
    assert pair.difference == pytest.approx(-60 / 90)
    assert pair.high < 0
    assert pair.p < 0.001


def test_a_pair_is_compared_on_the_items_that_were_judged_for_both() -> None:
    (pair,) = compare_pairs(_scores([[4, 2], [4, None], [None, 1], [3, 2]]), seed=7)
    assert (pair.n, pair.notes, pair.difference) == (2, 2, 1.5)


def test_a_pair_without_a_common_item_has_no_figures_and_leaves_the_others_alone() -> None:
    rows: list[list[int | None]] = [[4, 2, None], [4, 3, None], [3, 1, None], [None, None, 4]]
    pairs = {(pair.a, pair.b): pair for pair in compare_pairs(_scores(rows), seed=7)}
    assert pairs["a", "b"].p == pairs["a", "b"].p_adjusted == 0.25  # 2 of the 8 patterns of signs
    empty = pairs["a", "c"].to_json()
    assert (empty["n"], empty["notes"]) == (0, 0)
    assert {empty[key] for key in ("difference", "low", "high", "p", "p_adjusted")} == {None}


def test_one_note_says_nothing_of_a_difference() -> None:
    (pair,) = compare_pairs(_scores([[4, 1], [4, 1]], ["n", "n"]), seed=7)
    assert (pair.difference, pair.low, pair.high, pair.p) == (3.0, None, None, 1.0)


def test_holm_gives_what_a_worked_example_gives() -> None:
    # Sorted 0.005, 0.01, 0.03, 0.04; times 4, 3, 2, 1 = 0.02, 0.03, 0.06, 0.04; never below the one before.
    assert adjust_by_holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_keeps_the_order_of_the_p_values_and_lowers_none() -> None:
    p_values = np.random.default_rng(14).uniform(0, 1, 40) ** 3
    adjusted = np.array(adjust_by_holm(list(p_values)))
    assert np.all(adjusted >= p_values)
    assert np.all(np.diff(adjusted[np.argsort(p_values)]) >= 0)
    assert adjusted.max() <= 1
    assert adjust_by_holm([]) == []


def test_every_pair_is_adjusted_over_all_pairs() -> None:
    rng = np.random.default_rng(15)
    rows = [[int(grade) for grade in rng.integers(1, 4, 4)] for _ in range(40)]
    for row in rows[::2]:
        row[0] = 4
    pairs = compare_pairs(_scores(rows), seed=7)
    assert len(pairs) == 6
    assert [pair.p_adjusted for pair in pairs] == adjust_by_holm([pair.p for pair in pairs])
    assert any(pair.p_adjusted > pair.p for pair in pairs)


def test_wins_are_counted_against_the_chosen_model_on_common_items() -> None:
    wins = count_wins(_scores([[4, 2, 1], [3, 3, 4], [1, 2, None], [2, 1, 1]]), against="b")
    assert list(wins) == ["a", "c"]
    assert wins["a"].to_json() == {"win": 2, "tie": 1, "loss": 1}
    assert wins["c"].to_json() == {"win": 1, "tie": 1, "loss": 1}


def test_a_model_that_nobody_scored_cannot_be_compared_with() -> None:
    with pytest.raises(EvaluationError, match=r"no model 'z'.*a, b"):
        count_wins(_scores([[4, 2]]), against="z")
