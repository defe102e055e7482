"""What goes between the front and a replica: a request one way, its answer in parts the other.

No key and no header of the client's goes along: the front has checked them.
"""

from dataclasses import dataclass

from asclepius_ray.serving.access.account import Account, Caller


@dataclass(frozen=True)
class Call:
    """One request of somebody whom the front knows."""

    method: str
    path: str
    body: bytes
    request_id: str
    route: str
    caller: Caller
    seconds_left: float | None
    """Of the client's deadline when the front sent it."""


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
    """Since the replica took the request."""
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


def charge(account: Account, cost: Cost, held_seconds: float) -> None:
    """Writes the cost into the front's own account of the request, which began `held_seconds` earlier."""
    account.model = cost.model or account.model
    account.prompt_tokens, account.completion_tokens = cost.prompt_tokens, cost.completion_tokens
    account.queue_seconds = cost.queue_seconds
    if cost.first_token_seconds is not None:
        account.first_token_seconds = held_seconds + cost.first_token_seconds
    account.outcome = cost.outcome or account.outcome
