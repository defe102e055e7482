"""How the offline teacher misbehaves when it is told to: (request, attempt) → the fault that strikes."""

import hashlib
import math
import random
from dataclasses import dataclass, fields
from enum import StrEnum

from asclepius_ray.errors import ConfigError


class Fault(StrEnum):
    NONE = "none"
    SERVER_ERROR = "server_error"
    HANG = "hang"
    DISCONNECT = "disconnect"
    MALFORMED = "malformed"
    EMPTY = "empty"
    REFUSAL = "refusal"
    TRUNCATION = "truncation"
    CONTENT_FILTER = "content_filter"
    BAD_REQUEST = "bad_request"
    CONTEXT_TOO_LONG = "context_too_long"
    NO_QUOTA = "no_quota"


@dataclass(frozen=True)
class Faults:
    """Shares of requests (0 to 1) that meet each fault; the same requests in every run.

    The shares add up: with server_error=0.1 and empty=0.1 a fifth of all requests meets one of them.
    """

    latency_seconds: float = 0.0
    """Of every reply; the median where latency_sigma is set."""
    latency_sigma: float = 0.0
    """Makes the latency log-normal, drawn by request and attempt."""
    slow: float = 0.0
    """Share of attempts that take slow_seconds instead."""
    slow_seconds: float = 60.0
    requests_per_minute: int = 0
    """Beyond it: 429 with Retry-After. 0 = unlimited. One second's worth may come at once."""
    tokens_per_minute: int = 0
    """Likewise for tokens in and out, by what the prompt holds and the reply turns out to hold."""
    retry_after_seconds: float = -1.0
    """What a 429 says in Retry-After; -1 = the true time, 0 = nothing."""
    rate_headers: int = 0
    """1 = every reply tells the limits and what is left of them, as OpenAI's do."""
    outage_after_seconds: float = 0.0
    """From so long after the first request on, every request meets HTTP 503 …"""
    outage_seconds: float = 0.0
    """… for so long; 0 = no outage."""
    short: int = 0
    """1 = replies of a few words that still pass the checks: for runs of very many rows."""
    refuse_temperature: int = 0
    """1 = HTTP 400 for any temperature but 1, as some reasoning models answer."""
    refuse_max_tokens: int = 0
    """1 = HTTP 400 for max_tokens: the model wants max_completion_tokens."""
    failing_attempts: int = 0
    """Faults strike a request's first so many attempts only; 0 = every attempt."""
    server_error: float = 0.0
    """HTTP 500."""
    hang: float = 0.0
    """No reply, ever."""
    disconnect: float = 0.0
    """The connection is broken in the middle of the reply."""
    malformed: float = 0.0
    """HTTP 200 with a body that is no JSON."""
    empty: float = 0.0
    """HTTP 200 with no text."""
    refusal: float = 0.0
    """HTTP 200 with an apology of a language model in place of the answer."""
    truncation: float = 0.0
    """The first half of the reply, finish_reason "length"."""
    content_filter: float = 0.0
    """finish_reason "content_filter"."""
    bad_request: float = 0.0
    """HTTP 400."""
    context_too_long: float = 0.0
    """HTTP 400 with the code context_length_exceeded."""
    no_quota: float = 0.0
    """HTTP 429 with the code insufficient_quota."""

    def __post_init__(self) -> None:
        names = {setting.name for setting in fields(self)}
        assert names >= {fault.value for fault in Fault if fault is not Fault.NONE}
        total = sum(self.share_of(fault) for fault in Fault)
        if total > 1.0 + 1e-9 or any(not 0 <= self.share_of(fault) <= 1 for fault in Fault):
            raise ValueError(
                f"the shares of faults lie between 0 and 1 and add up to at most 1, found {total:g}"
            )

    def share_of(self, fault: Fault) -> float:
        share: float = 0.0 if fault is Fault.NONE else getattr(self, fault.value)
        return share

    def latency_of(self, request: str, attempt: int) -> float:
        """Seconds that attempt number `attempt` of a request takes; a function of both alone."""
        draw = random.Random(hashlib.sha256(f"latency\n{attempt}\n{request}".encode()).digest())
        if draw.random() < self.slow:
            return self.slow_seconds
        return self.latency_seconds * math.exp(self.latency_sigma * draw.gauss(0.0, 1.0))

    def draw(self, request: str, attempt: int) -> Fault:
        """The fault that strikes attempt number `attempt` (from 1) of a request; a function of both alone."""
        if self.failing_attempts and attempt > self.failing_attempts:
            return Fault.NONE
        digest = hashlib.sha256(f"{attempt}\n{request}".encode()).digest()
        draw = int.from_bytes(digest[:8], "big") / 2**64
        for fault in Fault:
            draw -= self.share_of(fault)
            if draw < 0:
                return fault
        return Fault.NONE


class RateLimit:
    """A bucket of one second's worth of requests, or of tokens, that fills at `per_minute`."""

    def __init__(self, per_minute: int, now_seconds: float) -> None:
        self._per_second = per_minute / 60
        self._capacity = max(1.0, self._per_second)
        self._level = self._capacity
        self._seen_at = now_seconds

    def take(self, now_seconds: float) -> float:
        """Takes one request out and returns 0, or the seconds until there is one."""
        self._level = min(self._capacity, self._level + (now_seconds - self._seen_at) * self._per_second)
        self._seen_at = now_seconds
        if self._level >= 1:
            self._level -= 1
            return 0.0
        return (1 - self._level) / self._per_second

    def owe(self, amount: float) -> None:
        """Takes what is known only afterwards, such as the tokens of a reply."""
        self._level -= amount

    @property
    def left(self) -> int:
        return max(0, int(self._level))

    @property
    def full_in_seconds(self) -> float:
        return (self._capacity - self._level) / self._per_second


def parse_faults(settings: list[str]) -> Faults:
    """Reads `name=number` pairs, as the command line gives them; a ConfigError names what is wrong."""
    known = {setting.name: setting.type for setting in fields(Faults)}
    values: dict[str, float] = {}
    for setting in settings:
        name, _, number = setting.partition("=")
        if name not in known:
            raise ConfigError(f"there is no fault {name!r}; the faults are {', '.join(sorted(known))}")
        try:
            values[name] = int(number) if known[name] in (int, "int") else float(number)
        except ValueError:
            raise ConfigError(f"the fault {name} takes a number, found {number!r}") from None
    try:
        return Faults(**values)  # type: ignore[arg-type]
    except ValueError as error:
        raise ConfigError(str(error)) from None
