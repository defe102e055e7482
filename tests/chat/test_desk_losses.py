"""Desks that are lost and lines that break: limits, pauses and money stand, and nothing is bought twice."""

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from desk_runs import PRICE, request_note, run

import asclepius_ray.chat.desk as desk_module
from asclepius_ray.artifacts import Folder
from asclepius_ray.chat.buyer import Buyer
from asclepius_ray.chat.config import OFFLINE_MODEL
from asclepius_ray.chat.desk import Desk
from asclepius_ray.chat.desk_link import DeskAway, DeskLink, RunTrouble
from asclepius_ray.chat.desk_messages import Heard, Said
from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.chat.exchange import Completion, Entry
from asclepius_ray.chat.gate import Ending, Load, Outcome, Patience, Ticket
from asclepius_ray.chat.offline.faults import Faults
from asclepius_ray.chat.offline.server import OfflineTeacher
from asclepius_ray.chat.row_deaths import DEATHS_MARK, LONE_DEATHS_MARK

pytestmark = pytest.mark.whole

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
LOAD = Load("note", 1000, 1000, 1, 500)


class Desks:
    """The desk of the moment; as Ray does, another one takes its place when it is lost."""

    def __init__(self, folder: Path, endpoint: Endpoint) -> None:
        self._folder, self._endpoint = Folder(str(folder)), endpoint
        self._life_seconds, self.losses_left = math.inf, 0
        self._start(is_heir=False)

    def lose_every(self, seconds: float, times: int) -> None:
        """From now on, at the first message after so long a life."""
        self._life_seconds, self.losses_left = seconds, times
        self._dies_at = time.monotonic() + seconds

    async def exchange(self, said: Said) -> Heard:
        if self.losses_left and time.monotonic() > self._dies_at:
            self.losses_left -= 1
            self.lose()
            raise DeskAway
        desk = self.desk
        heard = await desk.exchange(said)
        if desk is not self.desk:
            raise DeskAway
        return heard

    def lose(self) -> None:
        for task in self.desk._storage._tasks:
            task.cancel()
        self._start(is_heir=True)

    def _start(self, is_heir: bool) -> None:
        self.desk = Desk(self._folder, self._endpoint, is_heir)
        self._dies_at = time.monotonic() + self._life_seconds


def endpoint_of(teacher: OfflineTeacher, **settings: Any) -> Endpoint:
    return Endpoint(teacher.base_url, OFFLINE_MODEL, is_offline=True, timeout_seconds=20.0, **settings)


async def buy_all(
    endpoint: Endpoint,
    desks: Desks,
    lines: Sequence[Callable[[Said], Awaitable[Heard]]],
    num_requests: int,
    is_shared: bool = False,
) -> None:
    """One worker a line; all ask for everything where `is_shared`, else each has its part."""
    buyers = [Buyer(endpoint, DeskLink(line, f"worker {name}").start()) for name, line in enumerate(lines)]
    asked = [
        buyer.complete(request_note(number), Patience(60.0))
        for name, buyer in enumerate(buyers)
        for number in range(num_requests)
        if is_shared or number % len(buyers) == name
    ]
    answers = await asyncio.gather(*asked)
    assert all(isinstance(answer, Completion) for answer in answers)
    for buyer in buyers:
        await buyer.close()
    await desks.desk.close()


@asynccontextmanager
async def open_links(desks: Desks, num_links: int) -> AsyncIterator[list[DeskLink]]:
    links = [DeskLink(desks.exchange, f"worker {number}").start() for number in range(num_links)]
    yield links
    for link in links:
        await link.close()
    await desks.desk.close()


async def enter_and_leave(link: DeskLink, outcome: Outcome | None = None) -> Ticket:
    ticket = await link.enter(LOAD)
    link.leave(ticket, outcome or Outcome(Ending.ANSWERED, 300, 100))
    return ticket


async def die_with(link: DeskLink, desk: Desk) -> DeskLink:
    """The worker's process ends; the next one of that worker has spoken to the desk."""
    assert link._task is not None
    link._task.cancel()
    following = DeskLink(desk.exchange, "worker").start()
    await following.begin_row("another row")
    following.end_row("another row")
    return following


async def awaited(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def test_no_more_is_in_flight_than_allowed_however_often_the_desk_is_lost(tmp_path: Path) -> None:
    with OfflineTeacher(faults=Faults(latency_seconds=0.5)) as teacher:
        endpoint = endpoint_of(teacher, max_in_flight=8)

        async def scenario() -> None:
            desks = Desks(tmp_path, endpoint)
            desks.lose_every(0.8, times=4)
            await buy_all(endpoint, desks, [desks.exchange] * 4, 100)
            assert desks.losses_left == 0

        run(scenario())
        assert 6 <= teacher.most_in_flight <= 8
        assert teacher.requests_answered == {"note": 100}


@pytest.mark.parametrize("told", [900, 0], ids=["by the run file", "by headers"])
def test_the_rate_is_kept_however_often_the_desk_is_lost(tmp_path: Path, told: int) -> None:
    faults = Faults(latency_seconds=0.1, rate_headers=1, requests_per_minute=0 if told else 900)
    with OfflineTeacher(faults=faults) as teacher:
        endpoint = endpoint_of(teacher, max_in_flight=0, requests_per_minute=told)

        async def scenario() -> None:
            desks = Desks(tmp_path, endpoint)
            # Before the first reply nobody knows of a limit that headers tell.
            first = Buyer(endpoint, DeskLink(desks.exchange, "first").start())
            await first.complete(request_note(999), Patience(60.0))
            await first.close()
            desks.lose_every(1.0, times=4)
            await buy_all(endpoint, desks, [desks.exchange] * 4, 150)
            assert desks.losses_left == 0

        run(scenario())
        at, refusals = teacher.accepted_at, teacher.refusals
    most_in_three_seconds = max(sum(first <= moment < first + 3.0 for moment in at) for first in at)
    # 45, and what may be caught up with or was on its way when a desk was lost.
    assert most_in_three_seconds <= 45 + 15
    assert refusals <= 2


def test_a_pause_holds_for_all_workers_at_once(tmp_path: Path) -> None:
    async def scenario() -> float:
        endpoint = Endpoint("http://localhost/v1", "m")
        desks = Desks(tmp_path, endpoint)
        async with open_links(desks, 5) as links:
            await asyncio.gather(*(enter_and_leave(link) for link in links))
            told_at = time.monotonic()
            await enter_and_leave(links[0], Outcome(Ending.LIMITED, wait_seconds=2.0))
            await asyncio.sleep(0.2)
            tickets = await asyncio.gather(*(enter_and_leave(link) for link in links for _ in range(2)))
            return min(ticket.entered_at for ticket in tickets) - told_at

    assert 2.0 <= run(scenario()) < 6.0


def test_a_pause_and_a_learnt_rate_outlive_the_desk_and_hold_for_a_worker_that_is_new(tmp_path: Path) -> None:
    async def scenario() -> tuple[float, float, float | None]:
        endpoint = Endpoint("http://localhost/v1", "m", max_in_flight=0)
        desks = Desks(tmp_path, endpoint)
        async with open_links(desks, 3) as links:
            await asyncio.gather(*(enter_and_leave(link) for link in links for _ in range(10)))
            told_at = time.monotonic()
            await enter_and_leave(links[0], Outcome(Ending.LIMITED, wait_seconds=3.0))
            await awaited(lambda: all(link._blocked_until > told_at + 1.0 for link in links))
            rate = (await desks.desk.snapshot()).requests_per_minute
            desks.lose()
            newcomer = DeskLink(desks.exchange, "newcomer").start()
            tickets = await asyncio.gather(*(enter_and_leave(newcomer) for _ in range(30)))
            moments = sorted(ticket.entered_at for ticket in tickets)
            await newcomer.close()
            assert rate is not None
            return moments[0] - told_at, (moments[-1] - moments[0]) * rate / 60, rate

    waited, slots_between, _rate = run(scenario())
    assert waited >= 3.0
    assert slots_between >= 15


@pytest.mark.parametrize("seed", range(4))
def test_lines_that_break_cost_no_purchase_and_no_cent(tmp_path: Path, seed: int) -> None:
    """A message gets lost on its way, or its reply does; the desk itself is well."""
    draw = random.Random(seed)
    with OfflineTeacher(faults=Faults(latency_seconds=0.8)) as teacher:
        endpoint = endpoint_of(teacher, max_in_flight=12, price=PRICE, budget_usd=5.0)
        num_broken = [0]

        async def scenario() -> tuple[float | None, float, float]:
            desks = Desks(tmp_path, endpoint)

            async def breaking(said: Said) -> Heard:
                chance = draw.random()
                if chance < 0.1 and num_broken[0] < 12:
                    num_broken[0] += 1
                    if chance < 0.05:
                        await desks.exchange(said)
                    raise DeskAway
                return await desks.exchange(said)

            await buy_all(endpoint, desks, [breaking] * 3, 40, is_shared=True)
            snapshot, purse = await desks.desk.snapshot(), desks.desk._money.own.purse
            return snapshot.cost_usd, purse.settled_usd, purse.outstanding_usd

        journal_usd, settled_usd, outstanding_usd = run(scenario())
        charged = teacher._service.prompt_tokens + teacher._service.completion_tokens
        assert num_broken[0] >= 5
        assert teacher.requests_answered == {"note": 40}
        assert teacher.most_in_flight <= 12
    assert journal_usd == pytest.approx(charged * 1e-5)
    # What a lost message told of money counts as spent, and not as nothing.
    assert 0 < settled_usd <= charged * 1e-5 + 1e-9
    assert outstanding_usd == 0


def test_a_worker_that_was_taken_for_dead_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk_module, "STALE_WORKER_SECONDS", 0.5)
    with OfflineTeacher(faults=Faults(latency_seconds=0.3)) as teacher:
        endpoint = endpoint_of(teacher, max_in_flight=4)

        async def scenario() -> None:
            desks = Desks(tmp_path, endpoint)
            stalled = time.monotonic() + 1.0

            async def stalling(said: Said) -> Heard:
                if stalled < time.monotonic() < stalled + 1.5:
                    await asyncio.sleep(1.5)
                return await desks.exchange(said)

            await buy_all(endpoint, desks, [stalling, desks.exchange], 40)

        run(scenario())
        assert teacher.requests_answered == {"note": 40}


def test_hundreds_of_workers_cost_one_message_a_second_each_however_many_calls_they_make(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    num_links, num_calls = 300, 3000
    counted = [0]

    async def scenario() -> float:
        desks = Desks(
            tmp_path, Endpoint("http://localhost/v1", "m", max_in_flight=0, requests_per_minute=24_000)
        )

        async def counting(said: Said) -> Heard:
            counted[0] += 1
            return await desks.exchange(said)

        links = [DeskLink(counting, f"worker {number}").start() for number in range(num_links)]

        async def call(number: int) -> None:
            key = number.to_bytes(32, "little")
            ticket = await links[number % num_links].claim(key, LOAD)
            assert isinstance(ticket, Ticket)
            await asyncio.sleep(0.3)
            links[number % num_links].leave(ticket, Outcome(Ending.ANSWERED, 300, 100))
            answer = Completion("text", "stop", "m", 300, 100, 1)
            links[number % num_links].deliver(Entry(key, "note", answer, None))

        started = time.monotonic()
        await asyncio.gather(*(call(number) for number in range(num_calls)))
        seconds = time.monotonic() - started
        await asyncio.gather(*(link.close() for link in links))
        await desks.desk.close()
        return seconds

    seconds = run(scenario())
    with capsys.disabled():
        print(f"\n{num_links} workers, {num_calls} calls in {seconds:.1f} s: {counted[0]} messages")  # noqa: T201
    assert seconds < 1.5 * num_calls / 400
    assert counted[0] <= num_links * (seconds + 4)


def marks_left_by(kind: str, folder: Path, work: Callable[[Desk], Awaitable[DeskLink]]) -> list[Any]:
    """The marks of a kind in the journal of a desk, after work that leaves the link of its last worker."""

    async def leave(endpoint: Endpoint) -> list[Any]:
        desk = Desk(Folder(str(folder)), endpoint)
        await (await work(desk)).close()
        await desk.close()
        return list(desk._storage.journal.marks(kind))

    with OfflineTeacher() as teacher:
        return run(leave(endpoint_of(teacher)))


def test_a_row_that_waits_for_its_turn_again_does_not_die_alone_for_another(tmp_path: Path) -> None:
    async def wait_for_turn(desk: Desk) -> DeskLink:
        link = DeskLink(desk.exchange, "worker").start()
        for deaths in range(3):
            assert (await link.begin_row("row")).deaths == deaths
            if deaths:
                await link.admit_row("row", is_alone=False)
            link = await die_with(link, desk)
        assert (await link.begin_row("row")).deaths == 3
        await link.admit_row("row", is_alone=True)
        # It lets others go first and wants to begin again, as for the question pool: one of them kills.
        link.end_row("row")
        await link.begin_row("row")
        return await die_with(link, desk)

    assert marks_left_by(LONE_DEATHS_MARK, tmp_path, wait_for_turn) == []


def test_a_row_that_ends_while_the_line_is_broken_has_no_part_in_a_later_death(tmp_path: Path) -> None:
    async def end_unheard(desk: Desk) -> DeskLink:
        is_broken = asyncio.Event()

        async def line(said: Said) -> Heard:
            if is_broken.is_set() and not said.is_resync:
                raise DeskAway
            return await desk.exchange(said)

        link = DeskLink(line, "worker").start()
        for row in ("done", "at work"):
            await link.begin_row(row)
        is_broken.set()
        link.end_row("done")
        # The link speaks and is not heard; then it tells everything.
        await link.begin_row("next")
        return await die_with(link, desk)

    assert marks_left_by(DEATHS_MARK, tmp_path, end_unheard) == [{"at work": 1, "next": 1}]


def test_a_worker_that_was_silent_too_long_dies_with_its_rows_all_the_same(tmp_path: Path) -> None:
    async def be_silent(desk: Desk) -> DeskLink:
        link = DeskLink(desk.exchange, "worker").start()
        await link.begin_row("at work")
        desk._bury(desk._workers.pop("worker"))
        # It is there after all, and tells everything.
        await link.begin_row("next")
        link.end_row("next")
        return await die_with(link, desk)

    assert marks_left_by(DEATHS_MARK, tmp_path, be_silent) == [{"at work": 1}, {"at work": 2, "next": 1}]


def test_a_worker_that_hands_back_sends_no_more_keeps_what_it_bought_and_blames_no_row(
    tmp_path: Path,
) -> None:
    async def hand_back() -> tuple[object, float, bool, list[dict[str, int]]]:
        desk = Desk(Folder(str(tmp_path)), endpoint)
        leaving, staying = (DeskLink(desk.exchange, name).start() for name in ("worker", "other"))
        for row in ("in flight", "waiting"):
            await leaving.begin_row(row)
        ticket = await leaving.claim(KEY, LOAD)
        assert isinstance(ticket, Ticket)
        waiting = asyncio.ensure_future(leaving.claim(OTHER_KEY, LOAD))
        await asyncio.sleep(0.2)
        leaving.hand_back()
        [refused] = await asyncio.gather(waiting, return_exceptions=True)
        leaving.leave(ticket, Outcome(Ending.ANSWERED, 300, 100))
        leaving.deliver(Entry(KEY, "note", Completion("text", "stop", "m", 300, 100, 1), None))
        for row in ("in flight", "waiting"):
            leaving.end_row(row)
        await leaving.durable()
        await leaving.all_heard()
        assert KEY in desk._storage.journal
        heir = await die_with(leaving, desk)
        # The other request was asked for and is nobody's now.
        goes_on = isinstance(await staying.claim(OTHER_KEY, LOAD), Ticket)
        marks = list(desk._storage.journal.marks(DEATHS_MARK))
        for link in (heir, staying):
            link.abandon(OTHER_KEY)
            await link.close()
        await desk.close()
        return refused, desk._money.unsettled_usd, goes_on, marks

    with OfflineTeacher() as teacher:
        endpoint = endpoint_of(teacher, max_in_flight=1)
        refused, unsettled_usd, goes_on, marks = run(hand_back())
    assert isinstance(refused, RunTrouble)
    assert (unsettled_usd, goes_on, marks) == (0.0, True, [])
