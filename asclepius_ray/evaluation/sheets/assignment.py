"""Which rater grades which items, and under which label each model's answer stands: pure, by the seed."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from asclepius_ray.evaluation.judging import draw_orders


@dataclass(frozen=True)
class Candidate:
    """An item that may be graded, with the models whose answers came."""

    item_id: str
    note_id: str
    task: str
    models: tuple[str, ...]


@dataclass(frozen=True)
class Drawing:
    """What is to be drawn; `overlap`: the share of the items that every rater grades."""

    raters: tuple[str, ...]
    num_items: int
    overlap: float
    seed: int


@dataclass(frozen=True)
class SheetItem:
    """One item of one rater's sheet; `models` in the order of their labels A, B, …

    code: the item's name in the sheets. An item's own id may tell a patient, or that the item is meant to
    be unanswerable.
    """

    code: str
    item_id: str
    models: tuple[str, ...]


def assign(candidates: Sequence[Candidate], drawing: Drawing) -> dict[str, tuple[SheetItem, ...]]:
    """Each rater's items in the order of the sheet; a function of the seed, whatever the order given.

    Balanced: tasks over the items and over the raters, notes over the items, and for each rater the
    places of the models, each block of as many items as there are models showing each in each place.
    """
    drawn = _draw_items(candidates, drawing.num_items, drawing.seed)
    codes = {item.item_id: f"item-{number:0{len(str(len(drawn)))}}" for number, item in enumerate(drawn, 1)}
    num_shared = round(drawing.overlap * len(drawn))
    shares = {rater: list(drawn[:num_shared]) for rater in drawing.raters}
    for index, item in enumerate(_by_task(drawn[num_shared:])):
        shares[drawing.raters[index % len(drawing.raters)]].append(item)
    return {rater: _lay_out(items, codes, rater, drawing.seed) for rater, items in shares.items()}


def _draw_items(candidates: Sequence[Candidate], num_items: int, seed: int) -> list[Candidate]:
    """Task after task in turn, each time the item whose note was drawn least."""
    by_task: dict[str, list[Candidate]] = defaultdict(list)
    for item in sorted(candidates, key=lambda item: _draw(seed, "item", item.item_id)):
        by_task[item.task].append(item)
    turns = sorted(by_task, key=lambda task: _draw(seed, "task", task))
    num_drawn_of_note: Counter[str] = Counter()
    drawn: list[Candidate] = []
    while len(drawn) < min(num_items, len(candidates)):
        for task in turns:
            if not by_task[task] or len(drawn) == num_items:
                continue
            # The first of equals, so that the drawn order decides.
            item = min(by_task[task], key=lambda item: num_drawn_of_note[item.note_id])
            by_task[task].remove(item)
            num_drawn_of_note[item.note_id] += 1
            drawn.append(item)
    return drawn


def _by_task(items: Sequence[Candidate]) -> list[Candidate]:
    """Items of a task side by side: dealt out in turn, they go to all raters alike."""
    first_place: dict[str, int] = {}
    for place, item in enumerate(items):
        first_place.setdefault(item.task, place)
    return sorted(items, key=lambda item: first_place[item.task])


def _lay_out(
    items: Sequence[Candidate], codes: dict[str, str], rater: str, seed: int
) -> tuple[SheetItem, ...]:
    own_seed = int.from_bytes(_draw(seed, "rater", rater)[:8])
    ordered = sorted(items, key=lambda item: _draw(own_seed, "place", item.item_id))
    labelled: dict[str, tuple[str, ...]] = {}
    for models in sorted({item.models for item in items}):
        ids = [item.item_id for item in ordered if item.models == models]
        orders = draw_orders(ids, models, own_seed)
        labelled |= {item_id: order for item_id, (order,) in zip(ids, orders, strict=True)}
    return tuple(SheetItem(codes[item.item_id], item.item_id, labelled[item.item_id]) for item in ordered)


def _draw(seed: int, kind: str, name: str) -> bytes:
    return hashlib.sha256(f"{seed}/{kind}/{name}".encode()).digest()
