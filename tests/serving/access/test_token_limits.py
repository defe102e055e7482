"""A key's tokens per minute over simulated minutes: what answers use, whatever their requests reserved."""

import heapq
import random
from collections.abc import Callable
from itertools import count

import pytest

from asclepius_ray.serving.access.allowance import Allowance
from asclepius_ray.serving.access.keys import KeyLimits
from asclepius_ray.serving.access.limit_book import Grant, LimitBook

PER_MINUTE = 60_000
LIMITS = KeyLimits(tokens_per_minute=PER_MINUTE)
NUM_SECONDS = 360
# So long it takes until the first answers have shown what a reservation is worth.
SETTLED_SECONDS = 60


def used_each_second(
    reserved: int, used: Callable[[float], int], answer_seconds: float, load: float
) -> list[float]:
    """What a key uses of one place when it asks for `load` times its limit at an even pace."""
    allowance, ends, number = Allowance(LIMITS, 0.0), list[tuple[float, int, int]](), count()
    spent = [0.0] * (NUM_SECONDS + 60)
    now = 0.0
    while now < NUM_SECONDS:
        while ends and ends[0][0] <= now:
            ended_at, _, tokens = heapq.heappop(ends)
            allowance.settle(reserved, tokens, ended_at)
        tokens = used(now)
        if allowance.take(reserved, len(ends), now) is None:
            heapq.heappush(ends, (now + answer_seconds, next(number), tokens))
            lasts = max(1, round(answer_seconds))
            for second in range(int(now), int(now) + lasts):
                spent[second] += tokens / lasts
        now += tokens / (load * PER_MINUTE / 60)
    return spent[:NUM_SECONDS]


def shares_of_minutes(spent: list[float], first: int = 0) -> list[float]:
    """Of each minute, whenever it begins, in parts of the limit."""
    return [sum(spent[at : at + 60]) / PER_MINUTE for at in range(first, NUM_SECONDS - 60)]


@pytest.mark.parametrize("load", [1.2, 2.0, 5.0])
@pytest.mark.parametrize(
    ("reserved", "used", "answer_seconds"),
    [
        (4100, 300, 3),
        (2500, 600, 4),
        (16_000, 2300, 6),
        (4000, 1000, 20),
        (300, 10, 1),
        (400, 390, 0.5),
        (1000, 1000, 2),
        (4100, 4100, 20),
        (30_000, 3000, 2),
    ],
)
def test_every_minute_has_the_limit_whatever_is_reserved(
    reserved: int, used: int, answer_seconds: float, load: float
) -> None:
    spent = used_each_second(reserved, lambda _: used, answer_seconds, load)
    assert max(shares_of_minutes(spent)) < 1.1
    assert min(shares_of_minutes(spent, SETTLED_SECONDS)) > 0.9


@pytest.mark.parametrize(
    ("reserved", "used", "answer_seconds"), [(4100, 300, 3), (2500, 600, 4), (300, 10, 1)]
)
def test_the_first_minute_has_the_limit_too(reserved: int, used: int, answer_seconds: float) -> None:
    spent = used_each_second(reserved, lambda _: used, answer_seconds, 2.0)
    assert shares_of_minutes(spent)[0] == pytest.approx(1, abs=0.1)


def test_answers_of_every_length_have_the_limit_on_the_whole() -> None:
    chance = random.Random(4711)
    spent = used_each_second(4100, lambda _: int(20 + 4000 * chance.random() ** 2), 4, 2.0)
    assert sum(spent[SETTLED_SECONDS:]) / (NUM_SECONDS - SETTLED_SECONDS) == pytest.approx(
        PER_MINUTE / 60, rel=0.1
    )


def test_who_uses_less_than_the_limit_is_never_refused() -> None:
    allowance = Allowance(LIMITS, 0.0)
    for now in range(600):
        assert allowance.take(950, 0, now) is None
        allowance.settle(950, 300, now + 0.5)


def test_who_suddenly_uses_all_gets_one_minutes_limit_on_credit_and_pays_for_it() -> None:
    change = 120
    spent = used_each_second(4100, lambda now: 300 if now < change else 4100, 20, 10.0)
    assert max(shares_of_minutes(spent)) < 2.1
    after = spent[change:]
    for seconds in range(60, len(after)):
        assert sum(after[:seconds]) / 1000 < 1.1 * seconds + 60


def test_an_idle_key_has_saved_no_more_than_a_tenth_of_a_minute() -> None:
    allowance = Allowance(LIMITS, 0.0)
    got = [allowance.take(100, 0, 3600 + at / 100) is None for at in range(6000)]
    assert sum(got) * 100 == pytest.approx(PER_MINUTE, rel=0.1)


def test_a_new_book_counts_what_is_open_and_gives_back_nothing_that_it_did_not_take() -> None:
    book, open_before = LimitBook(), Grant("key", 50_000)
    book.beat("a", {"old": open_before}, (), 0.0)
    assert book.take("a", "new", Grant("key", 100), LIMITS, 0.0) is not None, "50 s of the limit are reserved"
    book.settle("a", "old", 500, 0.0)
    assert book.take("a", "large", Grant("key", 20_000), LIMITS, 0.0) is None
    book.settle("a", "large", 20_000, 1.0)
    refusal = book.take("a", "next", Grant("key", 20_000), LIMITS, 1.0)
    assert refusal is not None
    assert refusal.wait_seconds == pytest.approx(19.5, abs=1)


def test_of_what_was_lost_all_that_it_reserved_counts() -> None:
    book = LimitBook()
    assert book.take("a", "lost", Grant("key", 11_000), LIMITS, 0.0) is None
    book.beat("a", {}, (), 1.0)
    refusal = book.take("a", "next", Grant("key", 1000), LIMITS, 1.0)
    assert refusal is not None
    assert refusal.wait_seconds == pytest.approx(10, abs=0.1)
