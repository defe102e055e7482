"""The account of one request: who asks, until when, and what it cost; ids, counts and times, never text."""

import time
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Caller:
    """The holder of a key; the key itself is known to nobody here."""

    key_id: str
    scopes: frozenset[str] = frozenset()


@dataclass
class Account:
    """Made by the gate for each request (its `state.account`), filled on the way, written down at its end."""

    request_id: str
    route: str
    caller: Caller
    started: float = field(default_factory=time.monotonic)
    deadline: float | None = None
    """On the clock of `time.monotonic`; None where the client named none."""
    model: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    queue_seconds: float | None = None
    first_token_seconds: float | None = None
    outcome: str = ""
