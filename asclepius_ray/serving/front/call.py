"""What goes between the front and a replica: a request one way, its answer in parts the other.

No key and no header of the client's goes along: the front has checked them.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from asclepius_ray.serving.access.account import Account, Caller
from asclepius_ray.serving.meters import Observation


@dataclass(frozen=True)
class Call:
    """One request of somebody whom the front knows.

    It is packed when a replica takes it, however long it was held until then. Its times are on the clock of
    whoever holds it: on its way it keeps its age, and the seconds that are left of its deadline.
    """

    method: str
    path: str
    body: bytes
    request_id: str
    route: str
    caller: Caller
    started: float
    """When its first byte reached the front, on the clock of `time.monotonic`."""
    deadline: float | None = None
    """On the same clock; None where the client named none."""

    def __reduce__(self) -> tuple[Callable[..., "Call"], tuple[Any, ...]]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return _unpack, (values, time.monotonic())


@dataclass(frozen=True)
class Taken:
    """A replica has the request: it is not held at the front any more."""


@dataclass(frozen=True)
class Cost:
    """What the replica has written into the request's account so far."""

    model: str
    prompt_tokens: int
    completion_tokens: int
    queue_seconds: float | None
    first_token_seconds: float | None
    """From the request's first byte at the front."""
    outcome: str


@dataclass(frozen=True)
class Part:
    """A piece of an answer; the first one has its status and headers, the last one ends it."""

    body: bytes
    cost: Cost
    status: int = 0
    """0 in every part but the first."""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    is_last: bool = False
    figures: tuple[Observation, ...] = ()
    """What the replica has observed since it sent its last part, of whatever request."""


Item = Taken | Part


def cost_of(account: Account) -> Cost:
    return Cost(
        account.model,
        account.prompt_tokens,
        account.completion_tokens,
        account.queue_seconds,
        account.first_token_seconds,
        account.outcome,
    )


def charge(account: Account, cost: Cost) -> None:
    """Writes the cost into the front's own account of the request."""
    account.model = cost.model or account.model
    account.prompt_tokens, account.completion_tokens = cost.prompt_tokens, cost.completion_tokens
    account.queue_seconds, account.first_token_seconds = cost.queue_seconds, cost.first_token_seconds
    account.outcome = cost.outcome or account.outcome


def _unpack(values: dict[str, Any], packed_at: float) -> Call:
    """The call on this machine's clock, which has nothing in common with that of the front's."""
    shift = time.monotonic() - packed_at
    deadline = values["deadline"]
    moved = {
        "started": values["started"] + shift,
        "deadline": None if deadline is None else deadline + shift,
    }
    return Call(**values | moved)
