"""Who stands where in the judge's prompt, and what a reply of the judge says."""

from collections import Counter
from itertools import pairwise

import pytest

from asclepius_ray.evaluation.judging import draw_orders, parse_grades

ITEMS = [f"{number}-1" for number in range(101)]


@pytest.mark.parametrize("models", [("a", "b"), ("a", "b", "c")], ids=["two models", "three models"])
def test_each_model_stands_in_each_place_equally_often(models: tuple[str, ...]) -> None:
    orders = draw_orders(ITEMS, models, seed=7)
    for place in range(len(models)):
        counts = Counter(order[place] for order in orders)
        assert set(counts) == set(models)
        assert max(counts.values()) - min(counts.values()) <= 1
    assert all(sorted(order) == sorted(models) for order in orders)


def test_the_order_is_drawn_from_the_seed_and_the_item_alone() -> None:
    orders = dict(zip(ITEMS, draw_orders(ITEMS, ("a", "b"), seed=7), strict=True))
    backwards = list(reversed(ITEMS))
    assert dict(zip(backwards, draw_orders(backwards, ("b", "a"), seed=7), strict=True)) == orders
    assert dict(zip(ITEMS, draw_orders(ITEMS, ("a", "b"), seed=8), strict=True)) != orders


def test_neighbouring_items_do_not_simply_alternate() -> None:
    orders = draw_orders(ITEMS, ("a", "b"), seed=7)
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
        ("\u0663 1", None),
        ("", None),
    ],
)
def test_only_so_many_digits_from_1_to_4_are_grades(reply: str, grades: tuple[int, ...] | None) -> None:
    assert parse_grades(reply, 2) == grades
