"""The paper's judge protocol as pure functions: who stands where in the prompt, what the reply says."""

import hashlib
import random
import re
import string
from collections.abc import Sequence

GRADES = (1, 2, 3, 4)


def draw_orders(item_ids: Sequence[str], models: Sequence[str], seed: int) -> list[tuple[str, ...]]:
    """For each item the order in which the judge sees the models' answers.

    A function of the seed and the item ids alone, not of the order of the items. Balanced: over every
    len(models) items of the seeded sequence each model stands once in each place, so a judge who likes
    the first answer best gives no model an advantage.
    """
    ranked = sorted(range(len(item_ids)), key=lambda index: (_draw(seed, item_ids[index]), index))
    orders: list[tuple[str, ...]] = [()] * len(item_ids)
    for rank, index in enumerate(ranked):
        block, turn = divmod(rank, len(models))
        base = sorted(models)
        random.Random(f"{seed}/{block}").shuffle(base)
        orders[index] = (*base[turn:], *base[:turn])
    return orders


def label_of(place: int) -> str:
    """A, B, … for the places 0, 1, … of the prompt."""
    return string.ascii_uppercase[place]


def parse_grades(reply: str, num_answers: int) -> tuple[int, ...] | None:
    """The grades of a reply, in the order of the labels; None unless it is exactly so many digits 1-4.

    Nothing is guessed: a reply with one grade too few, a 5, a 3.5 or a word in it is unreadable.
    """
    parts = reply.split()
    if len(parts) != num_answers or not all(re.fullmatch("[1-4]", part) for part in parts):
        return None
    return tuple(int(part) for part in parts)


def _draw(seed: int, item_id: str) -> bytes:
    return hashlib.sha256(f"{seed}/{item_id}".encode()).digest()
