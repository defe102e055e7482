"""A replica's way to the one place that keeps the limits of keys, and what holds while it cannot be reached.

While it is away (Ray starts a lost one anew within seconds) each replica lets through an equal part of
every limit on its own, and nobody is refused for it. All together stay within the limits per minute; of
requests at the same time each replica lets through a whole number and at least one, so that there may be up
to one more per replica than the limit. When the desk is back, every replica tells it what is open.
"""

import asyncio
import contextlib
import logging
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from asclepius_ray.serving.access.account import Caller
from asclepius_ray.serving.access.allowance import Allowance, LimitRefusal
from asclepius_ray.serving.access.keys import KeyLimits
from asclepius_ray.serving.access.limit_book import Grant, LimitBook

BEAT_SECONDS = 2.0

logger = logging.getLogger(__name__)


class DeskAway(Exception):
    """The desk cannot be reached now."""


class Desk(Protocol):
    """The one place; each call raises DeskAway where it does not answer soon."""

    async def take(
        self, replica_id: str, grant_id: str, grant: Grant, limits: KeyLimits
    ) -> LimitRefusal | None: ...

    async def settle(self, replica_id: str, grant_id: str, used_tokens: int) -> None: ...

    async def beat(self, replica_id: str, is_open: Mapping[str, Grant], pending: frozenset[str]) -> int: ...

    async def leave(self, replica_id: str) -> None: ...


class LocalDesk:
    """The one place where all that asks is in this process."""

    def __init__(self) -> None:
        self._book = LimitBook()

    async def take(
        self, replica_id: str, grant_id: str, grant: Grant, limits: KeyLimits
    ) -> LimitRefusal | None:
        return self._book.take(replica_id, grant_id, grant, limits, time.monotonic())

    async def settle(self, replica_id: str, grant_id: str, used_tokens: int) -> None:
        self._book.settle(replica_id, grant_id, used_tokens, time.monotonic())

    async def beat(self, replica_id: str, is_open: Mapping[str, Grant], pending: frozenset[str]) -> int:
        self._book.beat(replica_id, is_open, pending, time.monotonic())
        return self._book.num_replicas

    async def leave(self, replica_id: str) -> None:
        self._book.leave(replica_id, time.monotonic())


@dataclass(eq=False)
class LimitLink:
    """The limits of keys as one replica asks for them; only keys with limits cost a call."""

    desk: Desk
    replica_id: str
    num_replicas: int = 1
    """As many share the limits while the desk is away; every beat tells it anew."""
    _open: dict[str, Grant] = field(default_factory=dict)
    _pending: set[str] = field(default_factory=set)
    _num_open: "Counter[str]" = field(default_factory=Counter)
    _local: dict[str, Allowance] | None = None
    """Of each key, while the desk is away."""
    _beating: "asyncio.Task[None] | None" = None
    _turns: dict[str, asyncio.Lock] = field(default_factory=dict)
    _telling: "set[asyncio.Task[None]]" = field(default_factory=set)

    async def take(self, caller: Caller, tokens: int) -> "LimitTicket | LimitRefusal":
        """A place within the key's limits for a request that takes at most so many tokens."""
        self._begin_to_beat()
        grant_id, grant = uuid.uuid4().hex, Grant(caller.key_id, tokens)
        self._pending.add(grant_id)
        try:
            refusal = await self._ask(grant_id, grant, caller.limits)
        finally:
            self._pending.discard(grant_id)
        if refusal is not None:
            return refusal
        self._open[grant_id] = grant
        self._num_open[grant.key_id] += 1
        return LimitTicket(self, grant_id)

    def turn_of(self, key_id: str) -> asyncio.Lock:
        """Held by whoever waits for this key's limits in the order of asking."""
        return self._turns.setdefault(key_id, asyncio.Lock())

    def give_back(self, grant_id: str, used_tokens: int) -> None:
        """Ends a grant; the desk hears of it as soon as it can."""
        grant = self._open.pop(grant_id)
        self._num_open[grant.key_id] -= 1
        if self._local is not None:
            if grant.key_id in self._local:
                self._local[grant.key_id].settle(grant.reserved_tokens, used_tokens, time.monotonic())
            return
        # A beat that comes between must not take it for lost, of which all that it reserved counts.
        self._pending.add(grant_id)
        telling = asyncio.get_running_loop().create_task(self._tell(grant_id, used_tokens))
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)

    async def close(self) -> None:
        """Says good-bye, so that what is open here is nobody's any more."""
        if self._beating is None:
            return
        self._beating.cancel()
        self._beating = None
        with contextlib.suppress(DeskAway):
            await self.desk.leave(self.replica_id)

    async def _ask(self, grant_id: str, grant: Grant, limits: KeyLimits) -> LimitRefusal | None:
        if self._local is None:
            try:
                return await self.desk.take(self.replica_id, grant_id, grant, limits)
            except DeskAway:
                self._go_on_alone()
        return self._take_alone(grant, limits)

    def _take_alone(self, grant: Grant, limits: KeyLimits) -> LimitRefusal | None:
        now = time.monotonic()
        allowances = self._local if self._local is not None else {}
        if grant.key_id not in allowances:
            grants = (found for found in self._open.values() if found.key_id == grant.key_id)
            open_tokens = sum(found.reserved_tokens for found in grants)
            allowances[grant.key_id] = Allowance(limits, now, 1 / self.num_replicas, open_tokens)
        return allowances[grant.key_id].take(grant.reserved_tokens, self._num_open[grant.key_id], now)

    def _go_on_alone(self) -> None:
        if self._local is None:
            logger.warning(
                "the desk of limits is away: 1/%d of each key's limits holds here", self.num_replicas
            )
            self._local = {}

    def _begin_to_beat(self) -> None:
        if self._beating is None:
            self._beating = asyncio.get_running_loop().create_task(self._beat_on())

    async def _beat_on(self) -> None:
        while True:
            try:
                self.num_replicas = await self.desk.beat(
                    self.replica_id, dict(self._open), frozenset(self._pending)
                )
                self._local = None
            except DeskAway:
                self._go_on_alone()
            await asyncio.sleep(BEAT_SECONDS)

    async def _tell(self, grant_id: str, used_tokens: int) -> None:
        # One that is not heard ends with the next beat, and its unused tokens are lost to the key.
        try:
            with contextlib.suppress(DeskAway):
                await self.desk.settle(self.replica_id, grant_id, used_tokens)
        finally:
            self._pending.discard(grant_id)


@dataclass
class LimitTicket:
    """A place within a key's limits, until it is closed."""

    link: LimitLink
    grant_id: str
    _is_open: bool = True

    def close(self, used_tokens: int) -> None:
        """Gives back what was not used; the first call counts."""
        if self._is_open:
            self._is_open = False
            self.link.give_back(self.grant_id, used_tokens)
