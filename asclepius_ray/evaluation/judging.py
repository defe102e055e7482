"""The paper's judge protocol as pure functions: who stands where in the prompt, what the reply says."""

import hashlib
import random
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass

GRADES = (1, 2, 3, 4)


@dataclass(frozen=True)
class JudgeReply:
    """The grades in the order of the labels, and for each the judge's words, "" where there are none."""

    grades: tuple[int, ...]
    reasons: tuple[str, ...]


def draw_orders(
    item_ids: Sequence[str], models: Sequence[str], seed: int, num_orders: int = 1
) -> list[list[tuple[str, ...]]]:
    """For each item its orders: how the judge sees the models' answers the first, second … time.

    A function of the seed and the item ids alone, not of the order of the items. Balanced twice: over every
    len(models) items of the seeded sequence each model stands once in each place, so that a judge who likes
    the first answer best gives no model an advantage; and every second order of an item is the first one
    backwards, so that within an item a liking that grows or falls with the place cancels.
    """
    ranked = sorted(range(len(item_ids)), key=lambda index: (_draw(seed, item_ids[index]), index))
    orders: list[list[tuple[str, ...]]] = [[] for _ in item_ids]
    for rank, index in enumerate(ranked):
        block, turn = divmod(rank, len(models))
        base = sorted(models)
        random.Random(f"{seed}/{block}").shuffle(base)
        orders[index] = [_order(base, turn, number) for number in range(num_orders)]
    return orders


def label_of(place: int) -> str:
    """A, B, … Z, AA, AB, … for the places 0, 1, … of the prompt."""
    letters = string.ascii_uppercase
    return letters[place] if place < len(letters) else label_of(place // 26 - 1) + letters[place % 26]


def parse_reply(reply: str, num_answers: int, with_reasons: bool) -> JudgeReply | None:
    """What a judge's reply says; None unless it is, or with reasons begins with, a line of digits 1-4.

    Nothing is guessed: a line with one grade too few, a 5, a 3.5 or a word in it is unreadable.
    """
    line, _, rest = reply.strip().partition("\n")
    parts = line.split() if with_reasons else reply.split()
    if len(parts) != num_answers or not all(re.fullmatch("[1-4]", part) for part in parts):
        return None
    reasons = _reasons(rest) if with_reasons else {}
    return JudgeReply(
        tuple(int(part) for part in parts),
        tuple(reasons.get(label_of(place), "") for place in range(num_answers)),
    )


def _order(base: Sequence[str], turn: int, number: int) -> tuple[str, ...]:
    shift = (turn + number // 2) % len(base)
    order = (*base[shift:], *base[:shift])
    return order if number % 2 == 0 else order[::-1]


def _reasons(text: str) -> dict[str, str]:
    """Label → reason, of lines such as `A: it names both drugs.`"""
    found: dict[str, str] = {}
    for line in text.splitlines():
        label, colon, reason = line.strip().lstrip("-* ").partition(":")
        label = label.removeprefix("Answer ").strip("*() ")
        if colon and re.fullmatch("[A-Z]{1,2}", label) and reason.strip():
            found.setdefault(label, reason.strip("* "))
    return found


def _draw(seed: int, item_id: str) -> bytes:
    return hashlib.sha256(f"{seed}/{item_id}".encode()).digest()
