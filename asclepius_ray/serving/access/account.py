"""The account of one request: who asks, until when, and what it cost; ids, counts and times, never text."""

import time
from dataclasses import dataclass, field

from asclepius_ray.serving.access.keys import KeyLimits

NO_LIMITS = KeyLimits()


@dataclass(frozen=True)
class Caller:
    """The holder of a key; the key itself is known to nobody here."""

    key_id: str
    scopes: frozenset[str] = frozenset()
    limits: KeyLimits = NO_LIMITS


@dataclass
class Account:
    """Made by the gate for each request (`request.state.account`), filled on the way, written at its end."""

    request_id: str
    route: str
    """The template of the route that answered, as /v1/models/{name}; never what the client sent."""
    caller: Caller
    started: float = field(default_factory=time.monotonic)
    deadline: float | None = None
    """On the clock of `time.monotonic`; None where the client named none."""
    model: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    queue_seconds: float | None = None
    """Between its admission and its place at the engine."""
    first_token_seconds: float | None = None
    """From the request's first byte to the first token."""
    outcome: str = ""
    """How it ended: stop, length, cancelled, deadline or error, or the reason for which it was refused."""
