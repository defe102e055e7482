"""What one key may still take: a bucket of requests, one of tokens, a count of what is open; pure."""

from dataclasses import dataclass
from typing import Literal

from asclepius_ray.serving.access.bucket import Bucket
from asclepius_ray.serving.access.keys import KeyLimits
from asclepius_ray.serving.access.token_bucket import TokenBucket

IN_FLIGHT_RETRY_SECONDS = 1.0
"""When one of the open requests ends is not known here."""

LimitReason = Literal["key_requests", "key_tokens", "key_in_flight"]


@dataclass(frozen=True)
class LimitRefusal:
    """Which limit of a key is reached, and in how many seconds it has room again if nobody else takes it."""

    reason: LimitReason
    wait_seconds: float


class Allowance:
    """The limits of one key at one place; `share` is the part of them that is to be had there, and
    `open_tokens` what its requests have reserved that are open already."""

    def __init__(self, limits: KeyLimits, now: float, share: float = 1.0, open_tokens: int = 0) -> None:
        self._max_in_flight = -(-limits.max_in_flight * share // 1)
        requests, tokens = limits.requests_per_minute * share, limits.tokens_per_minute * share
        self._requests = Bucket(requests, now) if requests else None
        self._tokens = TokenBucket(tokens, now) if tokens else None
        self.hold(open_tokens, now)

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
        self.hold(tokens, now)
        return None

    def hold(self, tokens: int, now: float) -> None:
        """Reserves the tokens of what another place has let through."""
        if self._tokens is not None:
            self._tokens.take(tokens, now)

    def settle(self, tokens: int, used_tokens: int | None, now: float) -> None:
        """A request that reserved so many tokens is over; None = nobody knows what it used."""
        if self._tokens is not None:
            self._tokens.settle(tokens, used_tokens, now)
