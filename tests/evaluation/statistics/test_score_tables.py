"""Records to the tables of scores.json: counts add up, gaps stay gaps, and what a judge does wrong shows."""

import json
import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from asclepius_ray.evaluation.judging import draw_orders
from asclepius_ray.evaluation.records import Answer, Grade, Item, ItemKind, Verdict
from asclepius_ray.evaluation.statistics.item_scores import item_scores
from asclepius_ray.evaluation.statistics.summary import (
    comparison_table,
    position_table,
    score_table,
    win_table,
)

MODELS = ("large", "medium", "small")
TASKS = ("Abbreviation", "Summarization")
SEED = 7
ITEMS = [
    Item(f"{note}-{turn}", f"note-{note}", ItemKind.TEST, TASKS[turn % 2], "", "", "", "")
    for note in range(40)
    for turn in range(3)
]
ANSWERS = [Answer(item.item_id, model, "text", "stop", "") for item in ITEMS for model in MODELS]


def _judge_all(grade_of: Callable[[str, str, int], int], num_orders: int = 2) -> list[Grade]:
    """A judge who sees all answers together in balanced orders; grade_of takes item, model and place."""
    ids = [item.item_id for item in ITEMS]
    return [
        Grade(item_id, model, "judge", order, place, grade_of(item_id, model, place), Verdict.JUDGED)
        for item_id, orders in zip(ids, draw_orders(ids, MODELS, SEED, num_orders), strict=True)
        for order, drawn in enumerate(orders)
        for place, model in enumerate(drawn)
    ]


def _quality(item_id: str, model: str) -> int:
    """1-3, different from item to item; the large model is above the others on every third note."""
    note, turn = (int(part) for part in item_id.split("-"))
    return 1 + (note + turn) % 2 + (model == "large" and note % 3 == 0)


def _likes_the_first(item_id: str, model: str, place: int) -> int:
    return _quality(item_id, model) + (place == 0)


def _is_fair(item_id: str, model: str, place: int) -> int:
    return _quality(item_id, model)


def test_counts_add_up_over_all_and_on_each_task() -> None:
    answers = [
        replace(answer, failure="timeout") if index % 10 == 0 else answer
        for index, answer in enumerate(ANSWERS)
    ]
    failed = {(answer.item_id, answer.model) for answer in answers if answer.failure}
    grades = [
        replace(grade, grade=None, verdict=Verdict.ANSWER_FAILED)
        if (grade.item_id, grade.model) in failed
        else replace(grade, grade=None, verdict=Verdict.JUDGE_UNREADABLE)
        if grade.item_id.endswith("-1")
        else grade
        for grade in _judge_all(_is_fair)
    ]
    table = score_table(grades, answers, ITEMS, "judge", MODELS, SEED)
    for scores in table.values():
        for score in (scores["over_all"], *scores["tasks"].values()):
            assert score["judged"] + score["unjudged"] + score["failed"] == score["items"]
            assert score["failed"] > 0
        for count in ("items", "judged", "unjudged", "failed"):
            assert sum(score[count] for score in scores["tasks"].values()) == scores["over_all"][count]
    assert sum(scores["over_all"]["failed"] for scores in table.values()) == len(failed)
    assert sum(scores["over_all"]["unjudged"] for scores in table.values()) > 50


def test_an_item_without_a_grade_is_never_averaged_in() -> None:
    verdicts = {ITEMS[0].item_id: Verdict.JUDGE_UNREADABLE, ITEMS[1].item_id: Verdict.JUDGE_FAILED}
    gaps = [
        replace(grade, grade=None, verdict=verdicts[grade.item_id]) if grade.item_id in verdicts else grade
        for grade in _judge_all(lambda item_id, model, place: 4)
    ]
    score = score_table(gaps, ANSWERS, ITEMS, "judge", MODELS, SEED)["large"]["over_all"]
    assert (score["mean"], score["low"], score["high"]) == (4.0, 4.0, 4.0)
    assert (score["judged"], score["unjudged"]) == (118, 2)
    assert score["grade_shares"] == {"1": 0.0, "2": 0.0, "3": 0.0, "4": 1.0}


def test_a_failed_answer_has_no_score_whatever_a_judge_says_of_it() -> None:
    failing = replace(ANSWERS[0], text="", failure="timeout")
    grades = [
        replace(grade, grade=1) if (grade.item_id, grade.model) == (failing.item_id, failing.model) else grade
        for grade in _judge_all(lambda item_id, model, place: 4)
    ]
    score = score_table(grades, [failing, *ANSWERS[1:]], ITEMS, "judge", MODELS, SEED)[failing.model][
        "over_all"
    ]
    assert (score["mean"], score["judged"], score["unjudged"], score["failed"]) == (4.0, 119, 0, 1)


def test_a_number_beside_another_verdict_is_no_grade() -> None:
    grades = [
        replace(grade, verdict=Verdict.JUDGE_UNREADABLE)
        for grade in _judge_all(lambda item_id, model, place: 1)
    ]
    score = score_table(grades, ANSWERS, ITEMS, "judge", MODELS, SEED)["large"]["over_all"]
    assert (score["mean"], score["judged"], score["unjudged"]) == (None, 0, 120)
    assert score["grade_shares"] == {}


def test_one_order_is_enough_for_a_score_and_the_other_one_does_not_count_as_0() -> None:
    item = ITEMS[0]
    grades = [
        Grade(item.item_id, "large", "judge", 0, 0, 3, Verdict.JUDGED),
        Grade(item.item_id, "large", "judge", 1, 2, None, Verdict.JUDGE_UNREADABLE),
    ]
    score = score_table(grades, ANSWERS, [item], "judge", ["large"], SEED)["large"]["over_all"]
    assert (score["mean"], score["judged"], score["unjudged"]) == (3.0, 1, 0)


def test_the_score_of_an_item_is_the_mean_of_its_orders() -> None:
    item = ITEMS[0]
    grades = [
        Grade(item.item_id, "large", "judge", order, 0, grade, Verdict.JUDGED)
        for order, grade in enumerate((1, 4))
    ]
    scores = item_scores(grades, [item], "judge", ["large", "small"])
    assert scores.scores[0, 0] == 2.5
    assert scores.scores[0, 1] != scores.scores[0, 1]  # NaN: unjudged
    shares = score_table(grades, ANSWERS, [item], "judge", ["large"], SEED)["large"]["over_all"][
        "grade_shares"
    ]
    assert shares == {"1": 0.5, "2": 0.0, "3": 0.0, "4": 0.5}


def test_other_judges_and_other_items_do_not_count() -> None:
    grades = _judge_all(_is_fair)
    others = [replace(grade, judge="strict", grade=1) for grade in grades]
    others += [replace(grade, item_id=f"unanswerable-{grade.item_id}", grade=4) for grade in grades]
    assert score_table([*grades, *others], ANSWERS, ITEMS, "judge", MODELS, SEED) == score_table(
        grades, ANSWERS, ITEMS, "judge", MODELS, SEED
    )
    assert position_table([*grades, *others], ITEMS, "judge", SEED) == position_table(
        grades, ITEMS, "judge", SEED
    )


def test_the_order_of_the_records_changes_no_figure() -> None:
    grades, items, answers = _judge_all(_likes_the_first, num_orders=3), list(ITEMS), list(ANSWERS)

    def tables() -> str:
        return json.dumps(
            [
                score_table(grades, answers, items, "judge", MODELS, SEED),
                comparison_table(grades, items, "judge", MODELS, SEED),
                win_table(grades, items, "judge", MODELS, "small"),
                position_table(grades, items, "judge", SEED),
            ]
        )

    before = tables()
    for records in (grades, items, answers):
        random.Random(3).shuffle(records)
    assert tables() == before


def test_a_judge_that_likes_the_first_answer_shows_and_cancels_over_balanced_orders() -> None:
    biased, fair = _judge_all(_likes_the_first), _judge_all(_is_fair)
    positions = position_table(biased, ITEMS, "judge", SEED)
    assert positions["first_minus_last"]["low"] > 0.5
    assert positions["first_minus_last"]["n"] == len(ITEMS)
    assert positions["places"][0]["mean"] > positions["places"][2]["mean"] + 0.5
    assert positions["orders_agree"] < 0.75
    scores = score_table(biased, ANSWERS, ITEMS, "judge", MODELS, SEED)
    fair_scores = score_table(fair, ANSWERS, ITEMS, "judge", MODELS, SEED)
    for model in MODELS:
        bonus = scores[model]["over_all"]["mean"] - fair_scores[model]["over_all"]["mean"]
        assert bonus == pytest.approx(1 / 3)  # each model stood first in a third of all prompts
    pairs = comparison_table(biased, ITEMS, "judge", MODELS, SEED)["over_all"]
    fair_pairs = comparison_table(fair, ITEMS, "judge", MODELS, SEED)["over_all"]
    differences = [pair["difference"] for pair in pairs]
    assert differences == pytest.approx([pair["difference"] for pair in fair_pairs])


def test_without_balanced_orders_the_same_judge_would_favour_a_model() -> None:
    fixed = [
        Grade(item.item_id, model, "judge", 0, place, _likes_the_first(item.item_id, model, place), "judged")
        for item in ITEMS
        for place, model in enumerate(reversed(MODELS))
    ]
    (pair,) = [
        pair
        for pair in comparison_table(fixed, ITEMS, "judge", MODELS, SEED)["over_all"]
        if (pair["a"], pair["b"]) == ("medium", "small")
    ]
    assert (pair["difference"], pair["p"] < 0.001) == (-1.0, True)


def test_a_fair_judge_shows_no_position_bias_and_agrees_with_itself() -> None:
    positions = position_table(_judge_all(_is_fair), ITEMS, "judge", SEED)
    # Each order is followed by itself backwards: what a fair judge gives cancels to nothing.
    assert positions["first_minus_last"]["low"] <= 0 <= positions["first_minus_last"]["high"]
    assert positions["orders_agree"] == 1.0
    assert [place["grades"] for place in positions["places"]] == [240, 240, 240]


def test_first_minus_last_is_that_of_the_orders_that_have_both() -> None:
    grades = [
        Grade("0-0", "large", "judge", 0, 0, 4, Verdict.JUDGED),
        Grade("0-0", "small", "judge", 0, 1, 1, Verdict.JUDGED),
        Grade("0-0", "small", "judge", 1, 0, 3, Verdict.JUDGED),
        Grade("0-0", "large", "judge", 1, 1, 4, Verdict.JUDGED),
        Grade("1-0", "large", "judge", 0, 0, 2, Verdict.JUDGED),
        Grade("1-0", "small", "judge", 0, 1, None, Verdict.JUDGE_UNREADABLE),
    ]
    positions = position_table(grades, ITEMS, "judge", SEED)
    assert positions["first_minus_last"] == {"value": 1.0, "low": None, "high": None, "n": 1}
    assert positions["places"] == [
        {"place": 0, "mean": 3.0, "grades": 3},
        {"place": 1, "mean": 2.5, "grades": 2},
    ]
    assert positions["orders_agree"] == 0.5


def test_answers_judged_one_by_one_have_no_first_and_last() -> None:
    grades = [Grade(item.item_id, model, "judge", 0, 0, 3, "judged") for item in ITEMS for model in MODELS]
    positions = position_table(grades, ITEMS, "judge", SEED)
    assert positions["first_minus_last"] == {"value": None, "low": None, "high": None, "n": 0}
    assert positions["orders_agree"] is None


def test_a_judge_that_always_says_4_gives_figures_without_a_gap() -> None:
    grades = _judge_all(lambda item_id, model, place: 4)
    comparison = comparison_table(grades, ITEMS, "judge", MODELS, SEED)
    for pairs in (comparison["over_all"], *comparison["tasks"].values()):
        assert {(pair["difference"], pair["low"], pair["high"]) for pair in pairs} == {(0.0, 0.0, 0.0)}
        assert {(pair["p"], pair["p_adjusted"]) for pair in pairs} == {(1.0, 1.0)}
    wins = win_table(grades, ITEMS, "judge", MODELS, "small")
    assert wins["models"]["large"] == {"win": 0, "tie": 120, "loss": 0}
    scores = score_table(grades, ANSWERS, ITEMS, "judge", MODELS, SEED)
    json.dumps([comparison, wins, scores, position_table(grades, ITEMS, "judge", SEED)], allow_nan=False)


def test_nothing_judged_is_written_without_a_number_that_json_lacks() -> None:
    tables = [
        score_table([], ANSWERS, ITEMS, "judge", MODELS, SEED),
        comparison_table([], ITEMS, "judge", MODELS, SEED),
        position_table([], ITEMS, "judge", SEED),
    ]
    json.dumps(tables, allow_nan=False)
    assert tables[0]["large"]["over_all"]["unjudged"] == 120
    assert score_table([], [], [], "judge", MODELS, SEED)["large"]["over_all"]["items"] == 0


def test_the_better_model_wins_and_its_difference_is_significant_after_correction() -> None:
    grades = _judge_all(_is_fair)
    by_names = {
        (pair["a"], pair["b"]): pair
        for pair in comparison_table(grades, ITEMS, "judge", MODELS, SEED)["over_all"]
    }
    better, alike = by_names["large", "small"], by_names["medium", "small"]
    assert better["difference"] == pytest.approx(14 / 40)
    assert better["low"] > 0
    assert better["p"] < better["p_adjusted"] < 0.05
    assert alike["p_adjusted"] == 1.0
    assert win_table(grades, ITEMS, "judge", MODELS, "small")["models"] == {
        "large": {"win": 42, "tie": 78, "loss": 0},
        "medium": {"win": 0, "tie": 120, "loss": 0},
    }
