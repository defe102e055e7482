"""Intervals over notes: they cover what they promise, and depend on the values alone."""

from collections.abc import Callable

import numpy as np
import pytest
from simulated_scores import Study

from asclepius_ray.evaluation.statistics.intervals import Interval, interval_of_mean
from asclepius_ray.evaluation.statistics.summary import interval_of

SIMULATIONS = 1000
MIDDLE, HIGH = Study(level=2.6), Study(level=3.6)


def _coverage(
    study: Study, num_notes: int, simulations: int, cluster: Callable[[list[str]], list[str]]
) -> float:
    rng = np.random.default_rng(20)
    truth = study.true_mean()
    covered = 0
    for seed in range(simulations):
        values, notes = study.draw(num_notes, rng)
        interval = interval_of_mean(values, cluster(notes), seed, bounds=(1.0, 4.0))
        covered += interval.low <= truth <= interval.high
    return covered / simulations


@pytest.mark.parametrize(
    ("study", "num_notes"),
    [(MIDDLE, 20), (MIDDLE, 35), (MIDDLE, 60), (HIGH, 20), (HIGH, 40)],
    ids=["middle-20", "middle-35", "middle-60", "high-20", "high-40"],
)
def test_the_truth_lies_in_95_of_100_intervals(study: Study, num_notes: int) -> None:
    assert 0.93 <= _coverage(study, num_notes, SIMULATIONS, list) <= 0.97


def test_few_notes_still_cover() -> None:
    assert 0.92 <= _coverage(MIDDLE, 5, SIMULATIONS, list) <= 0.98


def test_items_taken_for_notes_of_their_own_cover_far_less() -> None:
    ignored = _coverage(MIDDLE, 35, 300, lambda notes: [str(index) for index in range(len(notes))])
    assert ignored < 0.85


def test_simulated_grades_have_the_mean_that_is_called_true() -> None:
    values, _ = HIGH.draw(100_000, np.random.default_rng(1))
    assert values.mean() == pytest.approx(HIGH.true_mean(), abs=0.01)


def test_the_order_of_the_items_changes_no_bit() -> None:
    rng = np.random.default_rng(3)
    values = 10 ** rng.uniform(-9, 0, 300)  # so far apart that an order of adding up shows
    notes = [f"note-{note}" for note in rng.integers(0, 40, 300)]
    interval = interval_of_mean(values, notes, 7)
    for _ in range(10):
        shuffled = rng.permutation(300)
        assert interval_of_mean(values[shuffled], [notes[index] for index in shuffled], 7) == interval


def test_the_seed_draws_the_notes() -> None:
    values, notes = MIDDLE.draw(30, np.random.default_rng(4))
    assert interval_of_mean(values, notes, 7) == interval_of_mean(values, notes, 7)
    assert interval_of_mean(values, notes, 7) != interval_of_mean(values, notes, 8)


@pytest.mark.parametrize("num_notes", [2, 30])
@pytest.mark.parametrize("value", [4.0, 0.1, 1 / 3])
def test_equal_values_have_an_interval_without_width(value: float, num_notes: int) -> None:
    notes = [str(index % num_notes) for index in range(91)]
    interval = interval_of_mean([value] * 91, notes, 7)
    assert interval == Interval(interval.value, interval.value, interval.value, 91)
    assert interval.value == pytest.approx(value)


def test_one_note_has_a_mean_and_no_interval() -> None:
    assert interval_of_mean([1.0, 4.0], ["a", "a"], 7) == Interval(2.5, None, None, 2)


def test_nothing_has_no_figure_rather_than_0() -> None:
    assert interval_of([], [], 7) == {"value": None, "low": None, "high": None, "n": 0}
    assert interval_of([float("nan")], ["a"], 7) == {"value": None, "low": None, "high": None, "n": 0}


def test_an_item_without_a_value_is_left_out_with_its_note() -> None:
    values, notes = MIDDLE.draw(30, np.random.default_rng(5))
    with_gaps = interval_of_mean([*values, float("nan"), float("nan")], [*notes, "note-3", "another"], 7)
    assert with_gaps == interval_of_mean(values, notes, 7)


def test_a_note_counts_as_often_as_it_has_items() -> None:
    assert interval_of_mean([1.0, 4.0, 4.0, 4.0], ["a", "b", "b", "b"], 7).value == 3.25


def test_an_interval_never_leaves_the_scale() -> None:
    two_notes = interval_of_mean([3.0, 4.0], ["a", "b"], 7, bounds=(1.0, 4.0))
    assert (two_notes.low, two_notes.high) == (1.0, 4.0)
    crowded = interval_of_mean([4.0] * 59 + [1.0], [str(index) for index in range(60)], 7)
    assert 1.0 <= crowded.low < crowded.value < crowded.high <= 4.0


def test_more_notes_give_a_narrower_interval_and_more_items_of_the_same_notes_hardly_do() -> None:
    rng = np.random.default_rng(6)
    effects = rng.normal(0, 1, 200)

    def width(num_notes: int, items_each: int) -> float:
        values = np.repeat(effects[:num_notes], items_each) + rng.normal(0, 0.1, num_notes * items_each)
        notes = [str(note) for note in np.repeat(np.arange(num_notes), items_each)]
        interval = interval_of_mean(values, notes, 7)
        return interval.high - interval.low

    assert width(200, 2) < 0.6 * width(50, 2)
    assert width(50, 20) > 0.9 * width(50, 2)
