"""What every attempt passes before it is sent, and what is told of it afterwards.

Two gates: `LocalGate` for a client of its own, `DeskLink` where many workers share one limit.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum, auto
from typing import Protocol

from asclepius_ray.chat.estimates import TokenEstimates
from asclepius_ray.chat.exchange import Request
from asclepius_ray.chat.limiter import Limiter, Limits
from asclepius_ray.chat.rate_headers import read_rate_headers

HORIZON_SECONDS = 1.0
PROBE_STEP = "probe"


@dataclass(frozen=True)
class Load:
    """How large an attempt is, as far as that is known before it is sent."""

    step: str
    num_characters: int
    num_bytes: int
    num_messages: int
    max_tokens: int
    is_urgent: bool = False


class Ending(StrEnum):
    """How one attempt ended."""

    ANSWERED = auto()
    """HTTP 200, whatever is in it."""
    LIMITED = auto()
    """HTTP 429: wait."""
    REJECTED = auto()
    """Another 4xx: the endpoint lives and will not answer this."""
    SERVER_ERROR = auto()
    BROKEN = auto()
    """No whole reply: it may have been charged all the same."""
    UNUSED = auto()
    """Never sent."""


@dataclass(frozen=True)
class Outcome:
    """What one attempt has shown of the endpoint; never a word of the exchange."""

    ending: Ending
    prompt_tokens: int = 0
    completion_tokens: int = 0
    wait_seconds: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    """Those about rates alone."""
    are_tokens_known: bool = True
    """False where a reply came that could not be read: it may have been charged."""


@dataclass(frozen=True)
class Ticket:
    """The permit for one attempt."""

    number: int
    load: Load
    entered_at: float
    """Monotonic seconds of this process."""


@dataclass
class Patience:
    """How long one row may lose time to broken attempts; shared by all its requests."""

    seconds_left: float


Settled = tuple[Load, tuple[int, int] | None]
"""A call of a batch at its end, and its tokens in and out; None where it may have been charged for some."""


class Gate(Protocol):
    """Lets attempts through, one permit each."""

    async def enter(self, load: Load) -> Ticket:
        """Waits until one attempt may be sent."""

    def leave(self, ticket: Ticket, outcome: Outcome) -> None:
        """Gives the permit back and tells how the attempt ended."""

    async def pause(self, seconds: float) -> None:
        """Waits before the next try of a request; a run that ends does not wait for that."""

    def answered_since(self, moment: float) -> bool | None:
        """Whether the endpoint has answered anyone since; None where this gate cannot tell."""


def load_of(request: Request, max_tokens: int) -> Load:
    texts = [turn.content for turn in request.messages]
    num_characters = sum(len(text) for text in texts)
    num_bytes = sum(len(text.encode("utf-8", errors="replace")) for text in texts)
    return Load(request.step, num_characters, num_bytes, len(texts), max_tokens, request.is_urgent)


class LocalGate:
    """The gate of one client alone: places in flight, the limits of the run file, the endpoint's pauses."""

    def __init__(self, limits: Limits, max_in_flight: int) -> None:
        self._places = asyncio.Semaphore(max_in_flight) if max_in_flight else None
        self._limiter = Limiter(limits, time.monotonic())
        self._estimates = TokenEstimates()
        self._reserved: dict[int, int] = {}
        self._next_number = 0

    async def enter(self, load: Load) -> Ticket:
        if self._places is not None:
            await self._places.acquire()
        try:
            tokens = self._estimates.expected_tokens(load.step, load.num_characters, load.max_tokens)
            while True:
                now = time.monotonic()
                send_at = self._limiter.reserve(tokens, now, HORIZON_SECONDS)
                if send_at is not None:
                    break
                await asyncio.sleep(min(max(self._limiter.blocked_until - now, 0.05), HORIZON_SECONDS))
            await asyncio.sleep(max(send_at - now, 0.0))
        except BaseException:
            self._give_place_back()
            raise
        self._next_number += 1
        self._reserved[self._next_number] = tokens
        return Ticket(self._next_number, load, time.monotonic())

    def leave(self, ticket: Ticket, outcome: Outcome) -> None:
        self._give_place_back()
        now = time.monotonic()
        reserved = self._reserved.pop(ticket.number)
        used = outcome.prompt_tokens + outcome.completion_tokens
        tell_limiter(self._limiter, outcome, ticket.entered_at, now)
        self._limiter.settle(reserved, used, now)
        if outcome.ending is Ending.ANSWERED:
            self._estimates.observe(
                ticket.load.step, ticket.load.num_characters, outcome.prompt_tokens, outcome.completion_tokens
            )

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def answered_since(self, moment: float) -> bool | None:
        return None

    def _give_place_back(self) -> None:
        if self._places is not None:
            self._places.release()


def tell_limiter(limiter: Limiter, outcome: Outcome, sent_at: float, now: float, whose: str = "") -> None:
    """Passes on what an attempt has shown of the endpoint's limits; `whose`: of several endpoints, which."""
    headers = read_rate_headers(outcome.headers) if outcome.headers else None
    if headers is not None:
        limiter.heard(headers, sent_at, now, whose)
    if outcome.ending is Ending.LIMITED:
        limiter.refused(outcome.wait_seconds, sent_at, now)
    elif outcome.ending in (Ending.ANSWERED, Ending.REJECTED):
        limiter.answered(now)
