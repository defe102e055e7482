"""The arithmetic of a key's limits, on a clock of the test's own."""

import asyncio
from collections.abc import Mapping

import pytest

from asclepius_ray.serving.access import limit_link
from asclepius_ray.serving.access.account import Caller
from asclepius_ray.serving.access.allowance import Allowance, LimitRefusal
from asclepius_ray.serving.access.keys import KeyLimits
from asclepius_ray.serving.access.limit_book import SILENT_SECONDS, Grant, LimitBook
from asclepius_ray.serving.access.limit_link import DeskAway, LimitLink, LimitTicket, LocalDesk

REQUESTS = KeyLimits(requests_per_minute=600)
TOKENS = KeyLimits(tokens_per_minute=6000)
TWO_OPEN = KeyLimits(max_in_flight=2)


def admitted_at_twice_the_limit(limits: KeyLimits, tokens: int, per_second: float, seconds: int) -> int:
    allowance = Allowance(limits, 0.0)
    moments = (number / per_second for number in range(int(per_second * seconds)))
    return sum(allowance.take(tokens, 0, now) is None for now in moments)


@pytest.mark.parametrize("seconds", [10, 60, 600])
def test_twice_the_limit_of_requests_is_let_through_once(seconds: int) -> None:
    assert admitted_at_twice_the_limit(REQUESTS, 1, 20, seconds) == pytest.approx(10 * seconds, rel=0.1)


@pytest.mark.parametrize("tokens", [10, 100, 1000])
def test_twice_the_limit_of_tokens_is_let_through_once(tokens: int) -> None:
    admitted = admitted_at_twice_the_limit(TOKENS, tokens, 200 / tokens, 600)
    assert admitted * tokens == pytest.approx(6000 * 10, rel=0.1)


@pytest.mark.parametrize("limits", [REQUESTS, TOKENS], ids=["requests", "tokens"])
def test_who_waits_as_long_as_told_is_let_through_and_not_before(limits: KeyLimits) -> None:
    allowance, now = Allowance(limits, 0.0), 5.0
    while (refusal := allowance.take(40, 0, now)) is None:
        pass
    assert refusal.wait_seconds > 0
    assert allowance.take(40, 0, now + 0.9 * refusal.wait_seconds) is not None
    assert allowance.take(40, 0, now + refusal.wait_seconds) is None


def test_tokens_that_were_not_used_come_back() -> None:
    allowance = Allowance(TOKENS, 0.0)
    assert allowance.take(100, 0, 0.0) is None
    assert allowance.take(100, 0, 0.0) is not None
    allowance.settle(100, 10, 0.0)
    assert allowance.take(90, 0, 0.0) is None


def test_a_request_larger_than_a_minute_is_served_and_paid_for_by_waiting() -> None:
    allowance = Allowance(TOKENS, 0.0)
    assert allowance.take(12_000, 0, 0.0) is None
    refusal = allowance.take(100, 0, 0.0)
    assert refusal is not None
    assert refusal.wait_seconds == pytest.approx(120, rel=0.02)


def test_open_requests_are_counted_and_end() -> None:
    book = LimitBook()
    grant = Grant("key", 10)
    assert book.take("a", "1", grant, TWO_OPEN, 0) is None
    assert book.take("b", "2", grant, TWO_OPEN, 0) is None
    refusal = book.take("a", "3", grant, TWO_OPEN, 0)
    assert refusal is not None
    assert refusal.reason == "key_in_flight"
    book.settle("b", "2", 5, 1)
    book.settle("b", "2", 5, 1)
    assert book.take("a", "3", grant, TWO_OPEN, 1) is None
    assert book.take("a", "4", grant, TWO_OPEN, 1) is not None, "one end frees one place"


def test_what_a_lost_replica_had_open_ends_with_it() -> None:
    book = LimitBook()
    for number in range(2):
        assert book.take("lost", str(number), Grant("key", 1), TWO_OPEN, 0) is None
    book.beat("other", {}, (), SILENT_SECONDS - 1)
    assert book.take("other", "x", Grant("key", 1), TWO_OPEN, SILENT_SECONDS - 1) is not None
    book.beat("other", {}, (), SILENT_SECONDS + 1)
    assert book.num_replicas == 1
    assert book.take("other", "x", Grant("key", 1), TWO_OPEN, SILENT_SECONDS + 1) is None


def test_a_new_book_learns_what_is_open_and_drops_what_is_not() -> None:
    book = LimitBook()
    grant = Grant("key", 1)
    assert book.take("a", "pending", grant, TWO_OPEN, 0) is None
    book.beat("a", {"old": grant}, {"pending"}, 0)
    assert book.take("a", "third", grant, TWO_OPEN, 0) is not None
    book.beat("a", {"old": grant}, (), 1)
    assert book.take("a", "third", grant, TWO_OPEN, 1) is None


class Switchable(LocalDesk):
    """A desk that can be away."""

    is_away = False

    async def take(
        self, replica_id: str, grant_id: str, grant: Grant, limits: KeyLimits
    ) -> LimitRefusal | None:
        self._require()
        return await super().take(replica_id, grant_id, grant, limits)

    async def beat(self, replica_id: str, is_open: Mapping[str, Grant], pending: frozenset[str]) -> int:
        self._require()
        return await super().beat(replica_id, is_open, pending)

    def _require(self) -> None:
        if self.is_away:
            raise DeskAway


async def take_until_refused(link: LimitLink, caller: Caller) -> list[LimitTicket]:
    found = []
    while isinstance(ticket := await link.take(caller, 1), LimitTicket):
        found.append(ticket)
    return found


def test_while_the_desk_is_away_each_replica_keeps_to_its_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limit_link, "BEAT_SECONDS", 0.05)
    caller = Caller("key", limits=KeyLimits(max_in_flight=8))

    async def play() -> None:
        desk = Switchable()
        links = [LimitLink(desk, name) for name in ("a", "b")]
        held = [await take_until_refused(link, caller) for link in links]
        assert sum(map(len, held)) == 8
        for tickets in held:
            for ticket in tickets:
                ticket.close(1)
        await asyncio.sleep(0.2)
        desk.is_away = True
        held = [await take_until_refused(link, caller) for link in links]
        assert [len(tickets) for tickets in held] == [4, 4]
        desk.is_away = False
        await asyncio.sleep(0.3)
        assert not any(await asyncio.gather(*(take_until_refused(link, caller) for link in links)))
        held[0][0].close(1)
        await asyncio.sleep(0.1)
        assert len(await take_until_refused(links[1], caller)) == 1
        for link in links:
            await link.close()

    asyncio.run(play())
