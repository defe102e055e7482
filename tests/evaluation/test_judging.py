"""Who stands where in the judge's prompt, and what a reply of the judge says."""

from collections import Counter
from itertools import pairwise

import pytest

from asclepius_ray.evaluation.config import most_orders
from asclepius_ray.evaluation.judging import JudgeReply, draw_orders, label_of, parse_reply
from asclepius_ray.prompts.rendering import render_judge_prompt

ITEMS = [f"{number}-1" for number in range(101)]
MODELS = ("a", "b", "c", "d", "e")


@pytest.mark.parametrize("num_models", [2, 3, 5])
def test_each_model_stands_in_each_place_equally_often_in_every_order(num_models: int) -> None:
    models = MODELS[:num_models]
    orders = draw_orders(ITEMS, models, 7, most_orders(num_models))
    for number in range(most_orders(num_models)):
        for place in range(num_models):
            counts = Counter(its_orders[number][place] for its_orders in orders)
            assert set(counts) == set(models)
            assert max(counts.values()) - min(counts.values()) <= 1
    assert all(sorted(order) == sorted(models) for its_orders in orders for order in its_orders)


@pytest.mark.parametrize("num_models", [1, 2, 3, 5])
def test_no_order_of_an_item_comes_twice(num_models: int) -> None:
    orders = draw_orders(ITEMS, MODELS[:num_models], 7, most_orders(num_models))
    assert all(len(set(its_orders)) == most_orders(num_models) for its_orders in orders)


def test_every_second_order_is_the_one_before_it_backwards() -> None:
    for its_orders in draw_orders(ITEMS, MODELS, 7, 4):
        assert its_orders[1] == its_orders[0][::-1]
        assert its_orders[3] == its_orders[2][::-1]


def test_the_order_is_drawn_from_the_seed_and_the_item_alone() -> None:
    orders = dict(zip(ITEMS, draw_orders(ITEMS, ("a", "b"), 7, 2), strict=True))
    backwards = list(reversed(ITEMS))
    assert dict(zip(backwards, draw_orders(backwards, ("b", "a"), 7, 2), strict=True)) == orders
    assert dict(zip(ITEMS, draw_orders(ITEMS, ("a", "b"), 8, 2), strict=True)) != orders


def test_neighbouring_items_do_not_simply_alternate() -> None:
    orders = [its_orders[0] for its_orders in draw_orders(ITEMS, ("a", "b"), seed=7)]
    pairs = list(pairwise(orders))
    same = sum(1 for one, other in pairs if one == other)
    assert 0.3 < same / len(pairs) < 0.7


@pytest.mark.parametrize(
    ("reply", "grades"),
    [
        ("3 1", (3, 1)),
        ("  4 4\n", (4, 4)),
        ("3", None),
        ("3 1 2", None),
        ("5 1", None),
        ("0 1", None),
        ("3.5 1", None),
        ("3, 1", None),
        ("31", None),
        ("A: 3 B: 1", None),
        ("3 1 because both are fine", None),
        ("3 1\nA: it says all", None),
        ("\u0663 1", None),
        ("", None),
    ],
)
def test_only_so_many_digits_from_1_to_4_are_grades(reply: str, grades: tuple[int, ...] | None) -> None:
    found = parse_reply(reply, 2, with_reasons=False)
    assert found == (None if grades is None else JudgeReply(grades, ("", "")))


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("3 1\nA: names both.\nB: wrong dose.", JudgeReply((3, 1), ("names both.", "wrong dose."))),
        ("3 1\n\n- **B**: wrong dose: 5 mg.", JudgeReply((3, 1), ("", "wrong dose: 5 mg."))),
        ("3 1\nAnswer A: names both.", JudgeReply((3, 1), ("names both.", ""))),
        ("3 1", JudgeReply((3, 1), ("", ""))),
        ("3 1 2\nA: names both.", None),
        ("A: names both.\n3 1", None),
    ],
)
def test_reasons_stand_below_the_grades_under_their_labels(reply: str, expected: JudgeReply | None) -> None:
    assert parse_reply(reply, 2, with_reasons=True) == expected


def test_more_than_26_answers_have_labels_of_their_own() -> None:
    labels = [label_of(place) for place in range(80)]
    assert labels[:3] == ["A", "B", "C"]
    assert labels[25:28] == ["Z", "AA", "AB"]
    assert len(set(labels)) == 80


def test_the_prompt_asks_for_reasons_only_where_they_are_wanted() -> None:
    plain, reasoned = (
        render_judge_prompt("a note", "a question", [("A", "x")], reasons=reasons)[0].content
        for reasons in (False, True)
    )
    assert "one line alone" in plain
    assert "one line alone" not in reasoned
    assert "what decided its grade" in reasoned
