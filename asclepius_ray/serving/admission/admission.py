"""What a replica takes in: what its engine can run now, and a queue as short as its answers allow.

A request counts with its prompt and its longest answer. Admission keeps count of the places at the engine:
so many streams, so many tokens of its cache. Who finds a place free gets it. Who does not may wait for one
if, by the measured pace, it comes within the longest wait; everybody else is refused at once and told when
to come again. A short queue is enough to keep an engine full, and a longer one only makes everybody late.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from asclepius_ray.serving.access.account import Account
from asclepius_ray.serving.access.limit_link import LimitLink, LocalDesk
from asclepius_ray.serving.admission.demand import Demand
from asclepius_ray.serving.admission.gauges import Gauges
from asclepius_ray.serving.admission.key_limits import take_limit, wait_for_limit
from asclepius_ray.serving.admission.occupancy import NO_PLACES, Occupancy, Places
from asclepius_ray.serving.admission.pace import Pace
from asclepius_ray.serving.admission.rooms import Rooms
from asclepius_ray.serving.admission.shares import Shares
from asclepius_ray.serving.admission.ticket import OWN_ENDS, Size, Ticket
from asclepius_ray.serving.meters import Meters, Reason
from asclepius_ray.serving.scaling import WINDOW_SECONDS, ReplicaLoad
from asclepius_ray.serving.surface.api_errors import ApiError, draining, whole_seconds

QUEUE_SHARE = 0.25
"""Of a usual answer's time: nobody waits longer for a place, whatever max_queue_seconds says. With it the
slowest of a hundred answers take at most twice as long under twice the load as under four fifths of it
(tests/drills/test_overload.py; 2.1 times with 0.5); a longer queue makes no more tokens
(simulated, tests/serving/admission)."""
SMALLEST_TOKENS = 2
"""Of a request: a token to read and one to make."""
COLD_QUEUE_SHARE = 0.25
"""Of the places: so many may wait while no answer has shown the pace yet."""
TELL_SECONDS = 1.0
"""Between two words to the figures on one answer: a figure costs more than the token that it counts."""


@dataclass(eq=False)
class _Waiter:
    account: Account
    size: Size
    ticket: "asyncio.Future[Ticket]"


@dataclass(eq=False)
class Admission:
    """Admits the requests of one engine: as many as have places, and a queue of `max_queue_seconds`.
    `budget_tokens` bounds all that is admitted, queued ones included, besides; 0 = no such bound.
    """

    budget_tokens: int = 0
    places: Places = NO_PLACES
    max_queue_seconds: float = math.inf
    meters: Meters = field(default_factory=Meters)
    limits: LimitLink = field(default_factory=lambda: LimitLink(LocalDesk(), "replica"))
    name: str = ""
    """The model's, for gauges."""
    cache_use: Callable[[], float] = lambda: 0.0
    own_places: Mapping[str, Places] = field(default_factory=dict)
    """Of models that the engine answers in a batch of their own; the others share `places`."""
    now: Callable[[], float] = time.monotonic
    is_draining: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.pace = Pace(self.now())
        self._rooms = Rooms(self.places, self.own_places)
        self._shares = Shares()
        self._demand = Demand(WINDOW_SECONDS)
        self._waiters: deque[_Waiter] = deque()
        self._gauges = Gauges(self.meters, self.name, self._read_gauges, self._is_idle)

    @property
    def held_tokens(self) -> int:
        """Prompts and longest answers of all that is admitted, running and queued."""
        return self._rooms.held_tokens

    @property
    def queued_tokens(self) -> int:
        """The same of what has no place yet."""
        return self._rooms.queued_tokens

    @property
    def num_open(self) -> int:
        """Tickets that are not closed."""
        return self._rooms.num_running + self._rooms.num_queued

    @property
    def expected_wait_seconds(self) -> float:
        """How long one more request of the mean size would wait, for the model where it waits longest;
        infinite where that is not known."""
        return max(
            self._wait_seconds(Size(model, self._mean_tokens, 0)) for model in (self.name, *self.own_places)
        )

    @property
    def load(self) -> ReplicaLoad:
        """What the number of replicas is decided by. Batches that wait in line are no part of it: they stay
        here, and another replica could take nothing from them."""
        asked_tokens, refused_tokens = self._demand.within(self.now())
        budget_share = self.held_tokens / self.budget_tokens if self.budget_tokens else 0.0
        return ReplicaLoad(
            queued_tokens=self.queued_tokens,
            held_tokens=self.held_tokens,
            filled_share=max(self._rooms.filled_share, budget_share),
            asked_tokens=asked_tokens,
            refused_tokens=refused_tokens,
            tokens_per_second=self.pace.tokens_per_second,
        )

    async def admit(self, account: Account, size: Size) -> Ticket:
        """A place, or an ApiError: 429 for want of room, time or the key's limits, 503 while draining."""
        self._gauges.keep()
        is_limited = bool(account.caller.limits)
        ticket = await self._admit_limited(account, size) if is_limited else self.admit_now(account, size)
        self._count(ticket)
        return ticket

    def admit_now(self, account: Account, size: Size) -> Ticket:
        """A place or one in the queue, without a look at the key's limits; raises what `admit` does."""
        self._check_room(account, size)
        return self._add(Ticket(self, account, size))

    async def _admit_limited(self, account: Account, size: Size) -> Ticket:
        """The same within the key's limits: until they let the request pass it holds no place and counts as
        no demand, so that a key that asks beyond them costs the others nothing.
        """
        # Before: what finds no room takes nothing of the limits.
        self._check_room(account, size)
        limit = await take_limit(self.limits, account, size, self.meters)
        try:
            ticket = self.admit_now(account, size)
        except ApiError:
            limit.close(0)
            raise
        ticket.limit = limit
        return ticket

    async def admit_when_there_is_room(self, account: Account, size: Size) -> Ticket:
        """A place as soon as one is free, in the order of asking: for work that nobody sits and waits for.

        Cancelling it leaves the line. An ApiError: 503 when draining begins, 504 when the client's time is
        over before.
        """
        self._gauges.keep()
        seconds = None if account.deadline is None else account.deadline - self.now()
        limit = ticket = None
        try:
            async with asyncio.timeout(seconds):
                limit = await wait_for_limit(self.limits, account, size)
                ticket = await self._wait_for_place(account, size)
        except TimeoutError:
            self._tell_refusal("deadline", account, size.model)
            raise ApiError(
                504, "deadline_exceeded", "The time that the request allows was over before it had its turn."
            ) from None
        finally:
            if ticket is None and limit is not None:
                limit.close(0)
        ticket.limit = limit
        self._count(ticket)
        return ticket

    def refuse_when_full(self, account: Account, model: str = "") -> None:
        """Raises what `admit` would for the smallest request: a route that calls it before it reads a long
        text refuses at no cost.
        """
        self._check_room(account, Size(model, 1, SMALLEST_TOKENS - 1))

    def drain(self) -> None:
        """From now on nothing is taken in (503); what was admitted goes on to its end."""
        self.is_draining = True
        for waiter in self._waiters:
            if not waiter.ticket.done():
                self._tell_refusal("draining", waiter.account, waiter.size.model)
                waiter.ticket.set_exception(draining())
        self._waiters.clear()

    # What tickets tell.

    def took(self, ticket: Ticket, num_tokens: int) -> None:
        now = self._advance()
        if ticket.placed_at is None:
            self._rooms.of(ticket.size.model).start(ticket)
            self._placed(ticket, now)
        if ticket.first_token_at is None:
            self._took_first(ticket, now)
        ticket.last_token_at = now
        ticket.made_tokens += num_tokens
        ticket.account.completion_tokens += num_tokens
        self.pace.made(num_tokens)
        if now - ticket.told_at >= TELL_SECONDS:
            self._tell_made(ticket, now)

    def release(self, ticket: Ticket, outcome: str) -> None:
        now = self._advance()
        self._tell_made(ticket, now)
        if ticket.placed_at is not None and outcome in OWN_ENDS:
            self.pace.ended(ticket.size.answer_tokens, ticket.made_tokens, now - ticket.placed_at)
        if ticket.first_token_at is not None:
            first_seconds = ticket.first_token_at - ticket.account.started
            self.meters.answered(ticket.size.model, first_seconds, ticket.token_seconds)
        if ticket.limit is not None:
            ticket.limit.close(ticket.size.prompt_tokens + ticket.made_tokens)
        self._remove(ticket)

    def _tell_made(self, ticket: Ticket, now: float) -> None:
        new_tokens = ticket.made_tokens - ticket.told_tokens
        if new_tokens:
            self.meters.made(ticket.size.model, new_tokens)
        ticket.told_tokens, ticket.told_at = ticket.made_tokens, now

    def _took_first(self, ticket: Ticket, now: float) -> None:
        account = ticket.account
        ticket.first_token_at = now
        if account.first_token_seconds is None:
            account.first_token_seconds = now - account.started
        at_once = ticket.placed_at == ticket.admitted_at
        self.pace.read(ticket.size.cached_prompt_tokens, now - ticket.admitted_at if at_once else None)

    # What is in the way of a request.

    def _check_room(self, account: Account, size: Size) -> None:
        if self.is_draining:
            self._tell_refusal("draining", account, size.model)
            raise draining()
        wait = self._wait_seconds(size)
        # One that comes alone is served however large it is: it fits the context, and nobody needs the room.
        if self.num_open:
            self._check_budget(account, size, wait)
            self._check_share(account, size, wait)
        self._check_deadline(account, size, wait)

    def _check_budget(self, account: Account, size: Size, wait: float) -> None:
        excess = self.held_tokens + size.held_tokens - self.budget_tokens if self.budget_tokens else 0
        longest = self._longest_wait_seconds
        if excess <= 0 and wait <= longest:
            return
        seconds = self.pace.seconds_until_free((one.running for one in self._rooms.running), 0, excess)
        # Where no bound was set an endless wait is within it, and the difference would be no number.
        late_seconds = wait - longest if wait > longest else 0.0
        message = "This replica is full; try again later."
        self._refuse("capacity", account, size, max(seconds, late_seconds), message)

    def _check_share(self, account: Account, size: Size, wait: float) -> None:
        """Where places are short, nobody queues who holds more than an equal part already."""
        if wait > 0 and self._shares.is_over(account.caller.key_id, self.now()):
            message = "This key already holds its part of a busy replica; try again later."
            self._refuse("share", account, size, wait, message)

    def _check_deadline(self, account: Account, size: Size, wait: float) -> None:
        if account.deadline is None:
            return
        wait = wait if math.isfinite(wait) else 0.0
        late_seconds = self.now() + wait + self.pace.first_token_seconds - account.deadline
        if late_seconds < 0:
            return
        if wait > 0:
            self._count_refused(size)
        self._tell_refusal("deadline", account, size.model)
        raise ApiError(
            429,
            "deadline_unreachable",
            "The answer cannot begin within the time that the request allows; allow more or try again later.",
            retry_after_seconds=whole_seconds(min(wait, late_seconds)),
        )

    def _wait_seconds(self, size: Size) -> float:
        """How long until a request of this size has a place, behind all that are queued already."""
        room = self._rooms.of(size.model)
        if room.has_place(size):
            return 0.0
        streams, tokens = room.excess(size)
        places = room.places
        if (
            not self.pace.is_measured
            and streams <= places.num_streams * COLD_QUEUE_SHARE
            and tokens <= places.tokens * COLD_QUEUE_SHARE
        ):
            return 0.0
        share = room.running_streams / self._rooms.running_streams
        return self.pace.seconds_until_free((one.running for one in room.running), streams, tokens, share)

    @property
    def _longest_wait_seconds(self) -> float:
        usual = self.pace.answer_seconds
        return min(self.max_queue_seconds, QUEUE_SHARE * usual) if usual else self.max_queue_seconds

    @property
    def _mean_tokens(self) -> int:
        return self.held_tokens // self.num_open if self.num_open else 0

    def _refuse(self, reason: Reason, account: Account, size: Size, seconds: float, message: str) -> None:
        self._count_refused(size)
        self._shares.want(account.caller.key_id, self.now())
        self._tell_refusal(reason, account, size.model)
        raise ApiError(429, "rate_limit_exceeded", message, retry_after_seconds=whole_seconds(seconds))

    def _count_refused(self, size: Size) -> None:
        # Who was refused before its text was read would have been as large as the others.
        is_read = size.held_tokens > SMALLEST_TOKENS
        self._demand.refuse(size.held_tokens if is_read else self._mean_tokens, self.now())

    def _tell_refusal(self, reason: Reason, account: Account, model: str) -> None:
        account.outcome, account.model = reason, model
        self.meters.refused(reason, model)

    # Places.

    def _advance(self) -> float:
        now = self.now()
        self.pace.advance(self._rooms.running_streams, now)
        return now

    def _add(self, ticket: Ticket) -> Ticket:
        self._advance()
        self._shares.hold(ticket.account.caller.key_id, ticket.size.held_tokens)
        self._demand.ask(ticket.size.held_tokens, ticket.admitted_at)
        if self._rooms.of(ticket.size.model).add(ticket):
            self._placed(ticket, ticket.admitted_at)
        return ticket

    def _placed(self, ticket: Ticket, now: float) -> None:
        ticket.placed_at = now
        seconds = now - ticket.admitted_at
        if ticket.account.queue_seconds is None:
            ticket.account.queue_seconds = seconds
        self.meters.placed(ticket.size.model, seconds)

    def _remove(self, ticket: Ticket) -> None:
        now = self._advance()
        self._shares.hold(ticket.account.caller.key_id, -ticket.size.held_tokens)
        for placed in self._rooms.of(ticket.size.model).remove(ticket):
            self._placed(placed, now)
        self._serve_waiters()

    def _count(self, ticket: Ticket) -> None:
        """Writes an admitted request into its account, which may be that of many."""
        account, size = ticket.account, ticket.size
        account.model = size.model
        account.prompt_tokens += size.prompt_tokens
        self.meters.admitted(size.model, size.prompt_tokens)

    # Those that wait for room.

    async def _wait_for_place(self, account: Account, size: Size) -> Ticket:
        if self.is_draining:
            self._tell_refusal("draining", account, size.model)
            raise draining()
        waiter = _Waiter(account, size, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        self._serve_waiters()
        try:
            return await waiter.ticket
        except asyncio.CancelledError:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            elif waiter.ticket.done() and not waiter.ticket.cancelled() and not waiter.ticket.exception():
                self._remove(waiter.ticket.result())
            raise

    def _serve_waiters(self) -> None:
        """Gives free places to those that wait; one whose key holds too much lets the next key go first."""
        full: set[Occupancy] = set()
        for waiter in list(self._waiters):
            room = self._rooms.of(waiter.size.model)
            if not self._is_within_budget(waiter.size):
                return
            if not room.has_place(waiter.size):
                full.add(room)
            if room in full:
                continue
            if waiter.ticket.done() or self._shares.is_over(waiter.account.caller.key_id, self.now()):
                continue
            self._waiters.remove(waiter)
            waiter.ticket.set_result(self._add(Ticket(self, waiter.account, waiter.size)))

    def _is_within_budget(self, size: Size) -> bool:
        held = self.held_tokens
        return not self.budget_tokens or not held or held + size.held_tokens <= self.budget_tokens

    # Gauges.

    def _is_idle(self) -> bool:
        return not (self.num_open or self._waiters)

    def _read_gauges(self) -> dict[str, float]:
        wait = self.expected_wait_seconds
        return {
            "running_requests": self._rooms.num_running,
            "waiting_requests": self._rooms.num_queued + len(self._waiters),
            "held_tokens": self.held_tokens,
            "cache_use": self.cache_use(),
            "expected_wait_seconds": wait if math.isfinite(wait) else 0.0,
        }
