"""Who grades what: overlap, balance over tasks, notes and places, and nothing but the seed decides."""

import random
from collections import Counter
from itertools import pairwise

import pytest

from asclepius_ray.evaluation.sheets.assignment import Candidate, Drawing, SheetItem, assign

MODELS = ("a", "b", "c")
RATERS = ("anna", "ben", "chris")
CANDIDATES = [
    Candidate(f"id-{note}-{task}", f"note-{note}", f"task-{task}", MODELS)
    for note in range(20)
    for task in range(6)
]
TASK_OF = {item.item_id: item.task for item in CANDIDATES}
NOTE_OF = {item.item_id: item.note_id for item in CANDIDATES}


def drawn(assignment: dict[str, tuple[SheetItem, ...]]) -> set[str]:
    return {item.item_id for items in assignment.values() for item in items}


@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.5, 1.0])
def test_the_overlap_goes_to_all_raters_and_the_rest_to_one_each(overlap: float) -> None:
    assignment = assign(CANDIDATES, Drawing(RATERS, 60, overlap, 7))
    num_raters = Counter(item.item_id for items in assignment.values() for item in items)
    assert len(num_raters) == 60
    assert Counter(num_raters.values()) == Counter({3: int(60 * overlap)}) + Counter(
        {1: 60 - int(60 * overlap)}
    )
    sizes = sorted(len(items) for items in assignment.values())
    assert sizes[-1] - sizes[0] <= 1


@pytest.mark.parametrize("num_raters", [1, 2, 3, 5])
def test_tasks_are_balanced_over_items_and_raters(num_raters: int) -> None:
    raters = tuple(f"rater{number}" for number in range(num_raters))
    assignment = assign(CANDIDATES, Drawing(raters, 60, 0.2, 7))
    over_all = Counter(TASK_OF[item_id] for item_id in drawn(assignment))
    assert set(over_all.values()) == {10}
    for items in assignment.values():
        counts = Counter(TASK_OF[item.item_id] for item in items)
        assert len(counts) == 6
        # One for the shared items, one for the dealt ones.
        assert max(counts.values()) - min(counts.values()) <= 1


def test_notes_are_drawn_as_evenly_as_they_can_be() -> None:
    counts = Counter(NOTE_OF[item_id] for item_id in drawn(assign(CANDIDATES, Drawing(RATERS, 50, 0.2, 7))))
    assert len(counts) == 20
    assert max(counts.values()) - min(counts.values()) <= 1


def test_each_model_stands_in_each_place_as_often_for_each_rater() -> None:
    for items in assign(CANDIDATES, Drawing(RATERS, 90, 0.5, 7)).values():
        assert len(items) == 60
        for place in range(3):
            assert set(Counter(item.models[place] for item in items).values()) == {20}


def test_places_stay_balanced_where_models_failed() -> None:
    mixed = [
        Candidate(item.item_id, item.note_id, item.task, MODELS[:2] if number % 3 == 0 else MODELS)
        for number, item in enumerate(CANDIDATES)
    ]
    for items in assign(mixed, Drawing(RATERS, 120, 0.5, 7)).values():
        for size in (2, 3):
            of_size = [item for item in items if len(item.models) == size]
            assert len(of_size) > 10
            for place in range(size):
                counts = Counter(item.models[place] for item in of_size)
                assert max(counts.values()) - min(counts.values()) <= 1


def test_only_the_seed_decides_and_not_the_order_of_the_items() -> None:
    drawing = Drawing(RATERS, 40, 0.3, 7)
    shuffled = random.Random(1).sample(CANDIDATES, len(CANDIDATES))
    assert assign(CANDIDATES, drawing) == assign(shuffled, drawing)
    assert assign(CANDIDATES, drawing) != assign(CANDIDATES, Drawing(RATERS, 40, 0.3, 8))


def test_raters_see_shared_items_in_orders_and_under_labels_of_their_own() -> None:
    assignment = assign(CANDIDATES, Drawing(RATERS, 40, 1.0, 7))
    by_rater = {rater: {item.item_id: item.models for item in items} for rater, items in assignment.items()}
    for first, second in pairwise(RATERS):
        assert [item.item_id for item in assignment[first]] != [item.item_id for item in assignment[second]]
        assert by_rater[first] != by_rater[second]


def test_an_item_has_one_code_in_all_sheets_and_it_tells_nothing_of_its_id() -> None:
    assignment = assign(CANDIDATES, Drawing(RATERS, 40, 0.5, 7))
    codes = {(item.item_id, item.code) for items in assignment.values() for item in items}
    assert len(codes) == len({code for _, code in codes}) == 40
    assert {code for _, code in codes} == {f"item-{number:02}" for number in range(1, 41)}
