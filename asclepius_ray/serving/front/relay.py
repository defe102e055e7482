"""The front's side of a call: a request on its way to a model, and the answer on its way to the client.

While the model has no replica, requests wait here, so many of them; everything that a replica answers
passes unchanged. The front keeps the client's connection, and can say in a stream that its replica is gone.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from starlette.requests import Request
from starlette.types import Send

from asclepius_ray.serving.access.account import Account
from asclepius_ray.serving.front.call import Call, Item, Taken, charge
from asclepius_ray.serving.meters import Meters
from asclepius_ray.serving.surface.api_errors import ApiError, deadline_exceeded
from asclepius_ray.serving.surface.event_stream import STALL_SECONDS, error_event
from asclepius_ray.serving.surface.watch import ClientGoneError, DeadlinePassedError, work_for_client

STARTING_RETRY_SECONDS = 5
"""For Retry-After where a model starts: loading one takes at least as long."""


class ReplicaLostError(Exception):
    """The replica that answered has ended, or there will be none."""


class Line(Protocol):
    """The way to the replicas of one model."""

    def ask(self, call: Call) -> AsyncGenerator[Item, None]:
        """The items of the answer, as soon as a replica takes the call; closing it cancels the call at once.

        Raises ReplicaLostError.
        """

    async def has_replica(self) -> bool:
        """Whether one runs now."""


@dataclass(eq=False)
class Relay:
    """Passes the requests for one model on."""

    line: Line
    most_held: int
    meters: Meters = field(default_factory=Meters)
    num_held: int = field(default=0, init=False)
    """Requests that no replica has taken yet."""

    async def pass_on(self, body: bytes, request: Request, send: Send) -> None:
        """Answers the request; an ApiError where nothing has been sent yet, else an event that says it."""
        account: Account = request.state.account
        answer = _Answer(send)
        if self.num_held >= self.most_held and not await self.line.has_replica():
            raise self._refusal(account)
        with self._held() as place:
            work = self._pass(_call(body, request, account), account, answer, place)
            seconds = None if account.deadline is None else account.deadline - time.monotonic()
            try:
                await work_for_client(work, request.receive, seconds, answer.is_stalled)
            except (ClientGoneError, asyncio.CancelledError) as ending:
                # The last part says how the answer ended, and a client may leave once it has that.
                account.outcome = account.outcome or "cancelled"
                if isinstance(ending, asyncio.CancelledError):
                    raise
            except DeadlinePassedError:
                account.outcome = "deadline"
                await answer.fail(deadline_exceeded())
            except ReplicaLostError:
                account.outcome = "error"
                await answer.fail(_replica_lost())

    async def _pass(self, call: Call, account: Account, answer: "_Answer", place: "_Place") -> None:
        async with aclosing(self.line.ask(call)) as items:
            async for item in items:
                if isinstance(item, Taken):
                    place.leave()
                    continue
                charge(account, item.cost)
                self.meters.repeat(item.figures)
                if item.status:
                    await answer.begin(item.status, item.headers)
                if item.body or item.is_last:
                    await answer.write(item.body, item.is_last)
                if item.is_last:
                    return
        raise ReplicaLostError

    @contextmanager
    def _held(self) -> "Iterator[_Place]":
        place = _Place(self)
        try:
            yield place
        finally:
            place.leave()

    def _refusal(self, account: Account) -> ApiError:
        account.outcome = "held_requests"
        self.meters.refused("held_requests", account.model)
        return ApiError(
            503,
            "model_starting",
            "This model has no replica at the moment, and as many requests as may wait for one already do; "
            "try again later.",
            retry_after_seconds=STARTING_RETRY_SECONDS,
        )


class _Place:
    """One among the requests that are held; given back once."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._is_held = True
        relay.num_held += 1

    def leave(self) -> None:
        if self._is_held:
            self._is_held = False
            self._relay.num_held -= 1


class _Answer:
    """The answer to the client."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._has_begun = False
        self._is_stream = False
        self._writing_since = 0.0

    async def begin(self, status: int, headers: tuple[tuple[bytes, bytes], ...]) -> None:
        self._has_begun = True
        self._is_stream = any(
            name == b"content-type" and value.startswith(b"text/event-stream") for name, value in headers
        )
        await self._send({"type": "http.response.start", "status": status, "headers": list(headers)})

    async def write(self, body: bytes, is_last: bool) -> None:
        self._writing_since = time.monotonic()
        await self._send({"type": "http.response.body", "body": body, "more_body": not is_last})
        self._writing_since = 0.0

    async def fail(self, error: ApiError) -> None:
        """The error as a response or, where a stream has begun, as its last event."""
        if not self._has_begun:
            raise error
        await self.write(error_event(error) if self._is_stream else b"", is_last=True)

    def is_stalled(self) -> bool:
        """Whether a part waits for its client for too long."""
        return self._writing_since > 0 and time.monotonic() - self._writing_since > STALL_SECONDS


def _call(body: bytes, request: Request, account: Account) -> Call:
    # The route's own path: what a client puts before or behind it is nobody's business.
    route = request.scope["route"].path
    return Call(
        request.method,
        route,
        body,
        account.request_id,
        route,
        account.caller,
        account.started,
        account.deadline,
    )


def _replica_lost() -> ApiError:
    return ApiError(503, "engine_unavailable", "The replica that answered has ended; try again soon.")
