"""A worker's line to the desk: gathers what many requests want to say, and wakes them with the reply.

One message is under way at a time; what comes up meanwhile goes with the next. The link keeps all that a
new desk must know (asks, permits in use, answers that are not durable yet), so that the loss of a desk
costs a pause and nothing else.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from asclepius_ray.chat.desk_messages import HANDED_BACK, Ask, Heard, Memory, Said, Trouble, Verdict
from asclepius_ray.chat.exchange import Entry
from asclepius_ray.chat.gate import Ending, Load, Outcome, Ticket
from asclepius_ray.chat.places import Places
from asclepius_ray.chat.rows_at_work import RowsAtWork

HEARTBEAT_SECONDS = 1.0
AWAY_SECONDS = 0.5


class DeskAway(Exception):
    """The desk does not answer now: it was lost and is being started anew."""


class RunTrouble(Exception):
    """The run as a whole ends, or this worker alone (HANDED_BACK); nothing more may be sent."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble)
        self.trouble = trouble


@dataclass
class _Waiting:
    ask: Ask
    answer: "asyncio.Future[Entry | float]"
    """The bought answer, or the moment at which to send."""


class DeskLink:
    """Speaks for one worker process, on the loop on which `start` was called."""

    def __init__(self, exchange: Callable[[Said], Awaitable[Heard]], worker: str) -> None:
        self._exchange = exchange
        self._worker = worker
        self._process = secrets.token_hex(8)
        self._desk = ""
        self._needs_resync = False
        self._number = 0
        self._asks: dict[int, _Waiting] = {}
        self._asks_by_key: dict[bytes, int] = {}
        self._buying: dict[bytes, asyncio.Future[Entry | None]] = {}
        self._held: dict[int, Load] = {}
        self._undurable: dict[int, Entry] = {}
        self._durable_waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._heard_waiters: list[asyncio.Future[None]] = []
        self._rows = RowsAtWork()
        self._places = Places()
        self._num_waiting_for_place = 0
        self._blocked_until = 0.0
        self._memory = Memory()
        self._answered_at = float("-inf")
        self._trouble: Trouble | None = None
        self._broken: BaseException | None = None
        """The error in which the conversation with the desk has ended."""
        self._ended = asyncio.Event()
        self._outbox = self._new_outbox()
        self._wake = asyncio.Event()
        self._spoke_at = float("-inf")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> "DeskLink":
        self._task = asyncio.get_running_loop().create_task(self._talk())
        self._task.add_done_callback(self._tell_of_end)
        return self

    async def close(self) -> None:
        """Waits until what was bought is durable and ends the conversation."""
        await self.durable()
        if self._task is not None:
            self._task.cancel()

    async def claim(self, key: bytes, load: Load) -> Entry | Ticket:
        """The answer if it is bought, by whomever; else the permit to buy it, and nobody else will.

        The caller ends a permit's purchase with `deliver` or `abandon`. Raises RunTrouble.
        """
        while (buying := self._buying.get(key)) is not None:
            entry = await asyncio.shield(buying)
            if entry is not None:
                return entry
        self._buying[key] = asyncio.get_running_loop().create_future()
        try:
            found = await self._ask(load, key)
        except BaseException:
            self.abandon(key)
            raise
        if isinstance(found, Entry):
            self._buying.pop(key).set_result(found)
        return found

    async def enter(self, load: Load) -> Ticket:
        """The permit for a further attempt."""
        found = await self._ask(load, b"")
        assert isinstance(found, Ticket)
        return found

    def leave(self, ticket: Ticket, outcome: Outcome) -> None:
        self._places.release()
        self._held.pop(ticket.number)
        now = time.monotonic()
        if outcome.ending in (Ending.ANSWERED, Ending.REJECTED):
            self._answered_at = max(self._answered_at, now)
        if outcome.wait_seconds is not None and outcome.ending is Ending.LIMITED:
            # At once; the others hear of it from the desk.
            self._blocked_until = max(self._blocked_until, now + outcome.wait_seconds)
        self._outbox.outcomes.append((ticket.number, outcome))
        self._wake.set()

    def answered_since(self, moment: float) -> bool | None:
        return self._answered_at > moment

    def deliver(self, entry: Entry) -> None:
        """Hands over a bought answer; it is durable soon, see `durable`."""
        self._number += 1
        self._undurable[self._number] = entry
        self._outbox.deliveries.append((self._number, entry))
        if (buying := self._buying.pop(entry.key, None)) is not None:
            buying.set_result(entry)
        self._wake.set()

    def abandon(self, key: bytes) -> None:
        """Gives up a purchase; whoever else waits for the key may buy it."""
        if (buying := self._buying.pop(key, None)) is not None:
            buying.set_result(None)
        self._outbox.abandoned.append(key)
        self._wake.set()

    async def durable(self) -> None:
        """Waits until every answer delivered so far is on storage, or the storage has failed."""
        if self._undurable and not (self._trouble is not None and self._trouble.kind == "storage"):
            self._require_conversation()
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._durable_waiters.append((max(self._undurable), waiter))
            self._wake.set()
            await waiter

    def hand_back(self) -> None:
        """Nothing more is sent from here; the run goes on elsewhere, and who has not sent gets RunTrouble."""
        self._end(Trouble(HANDED_BACK, "the machine of this worker is about to go"))

    async def all_heard(self) -> None:
        """Waits until the desk has heard what was said before."""
        self._require_conversation()
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._heard_waiters.append(waiter)
        self._wake.set()
        await waiter

    async def in_trouble(self) -> NoReturn:
        """Waits for the run's trouble, or the end of the conversation, if it comes to that, and raises it."""
        await self._ended.wait()
        if self._trouble is None:
            assert self._broken is not None
            raise self._broken
        raise RunTrouble(self._trouble)

    async def begin_row(self, row_id: str) -> Verdict:
        """Asks what is known of a row; one without deaths behind it is in progress from now on."""
        self.require_run()
        waiter = self._rows.begin(row_id, self._outbox)
        self._wake.set()
        return await waiter

    async def admit_row(self, row_id: str, is_alone: bool) -> None:
        """Tells that a row with deaths behind it begins now; returns when the desk knows."""
        self._require_conversation()
        waiter = self._rows.admit(row_id, is_alone, self._outbox)
        self._wake.set()
        await waiter

    def end_row(self, row_id: str) -> None:
        self._rows.end(row_id, self._outbox)

    def report(self, trouble: Trouble) -> None:
        """Tells that the endpoint as a whole cannot be used: every worker ends."""
        if self._trouble is None:
            self._outbox.trouble = trouble
            self._wake.set()

    async def _ask(self, load: Load, key: bytes) -> Entry | Ticket:
        self.require_run()
        self._number += 1
        number = self._number
        ask = Ask(number, load, key)
        waiting = self._asks[number] = _Waiting(ask, asyncio.get_running_loop().create_future())
        if key:
            self._asks_by_key[key] = number
        self._outbox.asks.append(ask)
        self._wake.set()
        try:
            answer = await waiting.answer
        finally:
            self._asks.pop(number, None)
            if key:
                self._asks_by_key.pop(key, None)
        return answer if isinstance(answer, Entry) else await self._take_place(number, load, answer)

    async def _take_place(self, number: int, load: Load, send_at: float) -> Ticket:
        self._num_waiting_for_place += 1
        has_place = False
        try:
            await asyncio.sleep(max(send_at - time.monotonic(), 0.0))
            await self._places.acquire()
            has_place = True
            while (pause := self._blocked_until - time.monotonic()) > 0:
                await self.pause(pause)
            # It may have ended meanwhile, and nothing more may be sent then.
            self.require_run()
        except BaseException:
            if has_place:
                self._places.release()
            self._held.pop(number, None)
            self._outbox.outcomes.append((number, Outcome(Ending.UNUSED)))
            raise
        finally:
            self._num_waiting_for_place -= 1
        return Ticket(number, load, time.monotonic())

    async def pause(self, seconds: float) -> None:
        """A provider may ask for hours: the end of the run does not wait for that."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.in_trouble()

    def require_run(self) -> None:
        """Raises RunTrouble where nothing more may be sent, or the error that ended the conversation."""
        if self._trouble is not None:
            raise RunTrouble(self._trouble)
        self._require_conversation()

    def _require_conversation(self) -> None:
        if self._broken is not None:
            raise self._broken

    def _tell_of_end(self, task: "asyncio.Task[None]") -> None:
        """A conversation that ends in an error wakes everybody with it: nobody may wait for ever."""
        if task.cancelled() or (error := task.exception()) is None:
            return
        # Who comes later is told too.
        self._broken = error
        self._wake_holders()
        waiting: list[asyncio.Future[Any]] = [one.answer for one in self._asks.values()]
        waiting += [*self._heard_waiters, *(waiter for _number, waiter in self._durable_waiters)]
        for waiter in waiting:
            if not waiter.done():
                waiter.set_exception(error)
        self._rows.give_up(error)

    def _wake_holders(self) -> None:
        """Who has a permit and waits, for a place or the end of a pause, learns that the run has ended."""
        self._ended.set()
        self._places.resize(len(self._held))

    def _new_outbox(self) -> Said:
        return Said(self._worker, self._process)

    async def _talk(self) -> None:
        next_seconds = 0.0
        while True:
            await self._wait(next_seconds)
            said, num_heard = self._take_outbox(), len(self._heard_waiters)
            self._spoke_at = time.monotonic()
            try:
                heard = await self._exchange(said)
            except DeskAway:
                self._needs_resync = True
                await asyncio.sleep(AWAY_SECONDS)
                continue
            if heard.needs_resync:
                self._needs_resync = True
                continue
            self._hear(heard)
            _wake(self._heard_waiters[:num_heard])
            del self._heard_waiters[:num_heard]
            next_seconds = heard.next_seconds

    async def _wait(self, next_seconds: float) -> None:
        """Until there is something to say, or to be heard, and at least `next_seconds` between messages."""
        if not self._needs_resync and not self._awaits_something():
            try:
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                return
        await asyncio.sleep(max(self._spoke_at + next_seconds - time.monotonic(), 0.0))

    def _awaits_something(self) -> bool:
        return bool(self._asks or self._durable_waiters or self._rows.is_awaited or self._places.is_wanted)

    def _take_outbox(self) -> Said:
        self._wake.clear()
        said, self._outbox = self._outbox, self._new_outbox()
        if self._needs_resync:
            said = self._tell_everything(said.trouble)
            self._needs_resync = False
            # The desk knows of no quota then but what is in use now.
            self._places.resize(self._places.in_use)
        said.desk = self._desk
        said.in_flight = self._places.in_use
        said.wanted = self._places.in_use + self._num_waiting_for_place + len(self._asks)
        return said

    def _tell_everything(self, trouble: Trouble | None) -> Said:
        pause_seconds = max(self._blocked_until - time.monotonic(), 0.0)
        said = Said(
            worker=self._worker,
            process=self._process,
            is_resync=True,
            asks=[waiting.ask for waiting in self._asks.values()],
            held=list(self._held.items()),
            buying=[*self._buying, *(entry.key for entry in self._undurable.values())],
            memory=replace(self._memory, learnt=replace(self._memory.learnt, pause_seconds=pause_seconds)),
            deliveries=list(self._undurable.items()),
            trouble=trouble,
        )
        self._rows.tell_all(said)
        return said

    def _hear(self, heard: Heard) -> None:
        now = time.monotonic()
        self._desk = heard.desk
        self._memory = heard.memory
        self._blocked_until = max(self._blocked_until, now + heard.memory.learnt.pause_seconds)
        self._answered_at = max(self._answered_at, now - heard.answered_age_seconds)
        self._take_quota(heard.quota)
        for entry in heard.bought:
            if (number := self._asks_by_key.get(entry.key)) is not None:
                self._answer(number, entry)
        for number, delay_seconds in heard.permits:
            self._answer(number, now + delay_seconds)
        self._rows.take_verdicts(heard.verdicts)
        self._settle_durable(heard.durable)
        if heard.trouble is not None:
            self._end(heard.trouble)

    def _take_quota(self, quota: int) -> None:
        if quota < self._places.size:
            # Fewer: the desk keeps the others for this worker until it hears that they are given up.
            self._wake.set()
        self._places.resize(quota)

    def _answer(self, number: int, answer: Entry | float) -> None:
        waiting = self._asks.pop(number, None)
        if waiting is None or waiting.answer.done():
            if not isinstance(answer, Entry):
                self._outbox.outcomes.append((number, Outcome(Ending.UNUSED)))
            return
        if not isinstance(answer, Entry):
            self._held[number] = waiting.ask.load
        waiting.answer.set_result(answer)

    def _settle_durable(self, durable: int) -> None:
        for number in [number for number in self._undurable if number <= durable]:
            del self._undurable[number]
        _wake([waiter for number, waiter in self._durable_waiters if number <= durable])
        self._durable_waiters = [one for one in self._durable_waiters if one[0] > durable]

    def _end(self, trouble: Trouble) -> None:
        """Wakes everybody who waits; who has sent already gets his answer and delivers it."""
        self._trouble = trouble
        self._wake_holders()
        for waiting in self._asks.values():
            if not waiting.answer.done():
                waiting.answer.set_exception(RunTrouble(trouble))
        self._asks.clear()
        self._rows.give_up(RunTrouble(trouble))
        if trouble.kind == "storage":
            _wake([waiter for _number, waiter in self._durable_waiters])
            self._durable_waiters = []


def _wake(waiters: "list[asyncio.Future[None]]") -> None:
    """Ends their waiting; who was cancelled meanwhile waits no more."""
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
