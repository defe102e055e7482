"""What one key may still take: a bucket for its requests, one for its tokens, a count of what is open; pure.

A bucket fills at the limit's rate and holds one second of it, or one request: over T seconds a key gets
at most the limit's share of T + 1 seconds. A larger bucket would let a whole minute's limit through at
once, and twice the limit within the minute around it.

Tokens are taken as reserved, prompt and longest answer, before anything is sent; what was not used is
given back at the end. A request that is larger than the bucket needs a full one and leaves a debt, so that
the rate holds over time and no request is too large for ever.
"""

from dataclasses import dataclass
from typing import Literal

from asclepius_ray.serving.access.keys import KeyLimits

BUCKET_SECONDS = 1.0
IN_FLIGHT_RETRY_SECONDS = 1.0
"""When one of the open requests ends is not known here."""

LimitReason = Literal["key_requests", "key_tokens", "key_in_flight"]


@dataclass(frozen=True)
class LimitRefusal:
    """Which limit of a key is reached, and in how many seconds it has room again if nobody else takes it."""

    reason: LimitReason
    wait_seconds: float


class Bucket:
    """A rate with a little room; all moments are monotonic seconds."""

    def __init__(self, per_minute: float, smallest: float, now: float) -> None:
        self._per_second = per_minute / 60.0
        self._capacity = max(self._per_second * BUCKET_SECONDS, smallest)
        self._level = self._capacity
        self._filled_at = now

    def seconds_until(self, amount: float, now: float) -> float:
        """How long until so much may be taken; 0 = now."""
        self._fill(now)
        missing = min(amount, self._capacity) - self._level
        # A rounding error must not refuse what a client waited for exactly as long as it was told.
        return missing / self._per_second if missing > 1e-6 * self._capacity else 0.0

    def take(self, amount: float, now: float) -> None:
        self._fill(now)
        self._level -= amount

    def give_back(self, amount: float, now: float) -> None:
        self._fill(now)
        self._level = min(self._capacity, self._level + amount)

    def _fill(self, now: float) -> None:
        self._level = min(self._capacity, self._level + (now - self._filled_at) * self._per_second)
        self._filled_at = now


class Allowance:
    """The limits of one key at one place; `share` is the part of them that is to be had there."""

    def __init__(self, limits: KeyLimits, now: float, share: float = 1.0) -> None:
        self._max_in_flight = -(-limits.max_in_flight * share // 1)
        requests, tokens = limits.requests_per_minute * share, limits.tokens_per_minute * share
        self._requests = Bucket(requests, 1.0, now) if requests else None
        self._tokens = Bucket(tokens, 1.0, now) if tokens else None

    def take(self, tokens: int, num_open: int, now: float) -> LimitRefusal | None:
        """Takes a request of so many tokens beside those that are open, or says which limit is in the way."""
        if self._max_in_flight and num_open >= self._max_in_flight:
            return LimitRefusal("key_in_flight", IN_FLIGHT_RETRY_SECONDS)
        if self._requests is not None and (wait := self._requests.seconds_until(1, now)):
            return LimitRefusal("key_requests", wait)
        if self._tokens is not None and (wait := self._tokens.seconds_until(tokens, now)):
            return LimitRefusal("key_tokens", wait)
        if self._requests is not None:
            self._requests.take(1, now)
        if self._tokens is not None:
            self._tokens.take(tokens, now)
        return None

    def give_back(self, tokens: int, now: float) -> None:
        """Reserved tokens that were not used."""
        if self._tokens is not None:
            self._tokens.give_back(tokens, now)
