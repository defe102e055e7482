"""How the offline teacher misbehaves when it is told to: (request, attempt) → the fault that strikes."""

import hashlib
import math
from bisect import bisect_right
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import cached_property
from itertools import accumulate
from statistics import NormalDist

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


_SWITCHES = (
    "rate_headers", "outage_disconnects", "short", "usage", "refuse_temperature", "refuse_max_tokens",
    "lasting",
)  # fmt: skip
_LOWEST = {"retry_after_seconds": -1.0}
_DRAWS = 2**52
"""So many different draws: with half of one added, each is a float between 0 and 1 and neither of them."""
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Faults:
    """Shares of requests (0 to 1) that meet each fault; the same requests in every run.

    The shares add up: with server_error=0.1 and empty=0.1 a fifth of all requests meets one of them.
    What is drawn is a function of the prompt and of how often it was sent before, refused ones left out.
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
    """Likewise for tokens of prompt and reply, counted when the request comes."""
    retry_after_seconds: float = -1.0
    """What a 429 says in Retry-After; -1 = the true time, 0 = nothing."""
    rate_headers: int = 0
    """1 = every reply tells the limits and what is left of them, as OpenAI's do."""
    quota_requests: int = 0
    """After so many replies: 429 with the code insufficient_quota until a top_up(); 0 = no end."""
    outage_after_seconds: float = 0.0
    """From so long after the first POST on, every request meets HTTP 503 …"""
    outage_seconds: float = 0.0
    """… for so long; 0 = no outage."""
    outage_disconnects: int = 0
    """1 = the outage closes connections instead of answering 503."""
    short: int = 0
    """1 = replies of a few words that still pass the checks: for runs of very many rows."""
    usage: int = 1
    """0 = replies do not tell how many tokens were used."""
    refuse_temperature: int = 0
    """1 = HTTP 400 for any temperature but 1, as some reasoning models answer."""
    refuse_max_tokens: int = 0
    """1 = HTTP 400 for max_tokens: the model wants max_completion_tokens."""
    failing_attempts: int = 0
    """Faults strike a request's first so many attempts only; 0 = every attempt."""
    lasting: int = 0
    """1 = what strikes a request's first attempt strikes all of them; else each attempt is drawn anew."""
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
        shares = [self.share_of(fault) for fault in Fault]
        if sum(shares) > 1.0 + 1e-9 or any(not 0 <= share <= 1 for share in [*shares, self.slow]):
            raise ValueError(
                f"the shares of faults lie between 0 and 1 and add up to at most 1, found {sum(shares):g} "
                f"(slow: {self.slow:g})"
            )
        for name in (setting.name for setting in fields(self)):
            value, lowest = getattr(self, name), _LOWEST.get(name, 0)
            if not lowest <= value < math.inf:
                raise ValueError(f"the fault {name} takes a number from {lowest:g} on, found {value:g}")
            if name in _SWITCHES and value not in (0, 1):
                raise ValueError(f"the fault {name} is a switch, 0 or 1, found {value:g}")

    def share_of(self, fault: Fault) -> float:
        share: float = 0.0 if fault is Fault.NONE else getattr(self, fault.value)
        return share

    def latency_of(self, request: str, attempt: int) -> float:
        """Seconds that attempt number `attempt` of a request takes; a function of both alone."""
        if not self.slow and not self.latency_sigma:
            return self.latency_seconds
        digest = _digest_of(request, attempt)
        if _share(digest[8:16]) < self.slow:
            return self.slow_seconds
        return self.latency_seconds * math.exp(self.latency_sigma * _NORMAL.inv_cdf(_share(digest[16:24])))

    def draw(self, request: str, attempt: int) -> Fault:
        """The fault that strikes attempt number `attempt` (from 1) of a request; a function of both alone."""
        faults, ends = self._drawn
        if not faults or (self.failing_attempts and attempt > self.failing_attempts):
            return Fault.NONE
        drawn = _digest_of(request, 1 if self.lasting else attempt)
        position = bisect_right(ends, _share(drawn[:8]))
        return faults[position] if position < len(faults) else Fault.NONE

    def is_out(self, since_first_seconds: float) -> bool:
        """Whether the outage is on, so long after the first POST."""
        return 0 <= since_first_seconds - self.outage_after_seconds < self.outage_seconds

    @cached_property
    def _drawn(self) -> tuple[list[Fault], list[float]]:
        """The faults that have a share, and where the share of each ends between 0 and 1."""
        faults = [fault for fault in Fault if self.share_of(fault)]
        return faults, list(accumulate(map(self.share_of, faults)))


def _digest_of(request: str, attempt: int) -> bytes:
    # A prompt may hold half of a surrogate pair: JSON can say so.
    return hashlib.sha256(f"{attempt}\n{request}".encode(errors="surrogatepass")).digest()


def _share(eight_bytes: bytes) -> float:
    return (int.from_bytes(eight_bytes, "big") // 2**12 + 0.5) / _DRAWS


class RateLimit:
    """A bucket of one second's worth of requests, or of tokens, that fills at `per_minute`.

    Whoever finds anything in it may take more than there is, and the next one waits for it: so one request
    larger than a second's worth of tokens passes, and the minute's sum is kept all the same.
    """

    def __init__(self, per_minute: int, now_seconds: float) -> None:
        self.per_minute = per_minute
        self._per_second = per_minute / 60
        self._capacity = max(1.0, self._per_second)
        self._level = self._capacity
        self._seen_at = now_seconds

    def wait_seconds(self, now_seconds: float) -> float:
        """0 if there is one to take, or the seconds until there is."""
        self._level = min(self._capacity, self._level + (now_seconds - self._seen_at) * self._per_second)
        self._seen_at = now_seconds
        return max(0.0, (1 - self._level) / self._per_second)

    def take(self, amount: float) -> None:
        self._level -= amount

    @property
    def left(self) -> int:
        return max(0, int(self._level))

    @property
    def full_in_seconds(self) -> float:
        return (self._capacity - self._level) / self._per_second


class RateLimits:
    """The limits on requests and tokens, as far as there are any: a request passes both or takes nothing."""

    def __init__(self, faults: Faults, now_seconds: float) -> None:
        both = {"requests": faults.requests_per_minute, "tokens": faults.tokens_per_minute}
        self._limits = {kind: RateLimit(limit, now_seconds) for kind, limit in both.items() if limit}

    def wait_seconds(self, now_seconds: float) -> float:
        """0 if a request may pass, or the seconds until one may."""
        return max((limit.wait_seconds(now_seconds) for limit in self._limits.values()), default=0.0)

    def take(self, num_tokens: int) -> None:
        """One request with so many tokens passes."""
        for kind, limit in self._limits.items():
            limit.take(1 if kind == "requests" else num_tokens)

    def headers(self, now_seconds: float) -> dict[str, str]:
        """OpenAI's headers: the limits, what is left of them, and when they are whole again."""
        headers = {}
        self.wait_seconds(now_seconds)
        for kind, limit in self._limits.items():
            headers[f"x-ratelimit-limit-{kind}"] = str(limit.per_minute)
            headers[f"x-ratelimit-remaining-{kind}"] = str(limit.left)
            headers[f"x-ratelimit-reset-{kind}"] = f"{limit.full_in_seconds:.3f}s"
        return headers


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
