"""A provider and its clients in simulated time: what a limiter's permits meet, with no waiting."""

import heapq
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count

from asclepius_ray.chat.estimates import TokenEstimates
from asclepius_ray.chat.gate import Ending, Outcome, tell_limiter
from asclepius_ray.chat.limiter import Limiter

HORIZON_SECONDS = 0.05


@dataclass
class Bucket:
    """Fills at `per_minute` up to so many seconds' worth; whoever finds anything in it may owe the rest."""

    per_minute: float
    capacity_seconds: float = 1.0
    level: float = field(init=False)
    seen_at: float = 0.0

    def __post_init__(self) -> None:
        self.level = self.capacity

    @property
    def capacity(self) -> float:
        return max(1.0, self.per_minute / 60 * self.capacity_seconds)

    def wait_seconds(self, now: float) -> float:
        self.level = min(self.capacity, self.level + (now - self.seen_at) * self.per_minute / 60)
        self.seen_at = now
        return max(0.0, (1.0 - self.level) * 60 / self.per_minute - 1e-9)


@dataclass
class Provider:
    """Accepts what its buckets hold; a 429 says what it is told to say."""

    requests: Bucket | None = None
    tokens: Bucket | None = None
    tells_retry_after: bool = False
    tells_headers: bool = False
    others_per_minute: float = 0.0
    """Requests that others send to the same account, evenly."""
    accepted: list[tuple[float, float]] = field(default_factory=list)
    """Moment and tokens."""
    refused_at: list[float] = field(default_factory=list)
    _others_at: float = 0.0

    def meet(self, now: float, num_tokens: int) -> Outcome | None:
        """A refusal, or None where the request is accepted."""
        self._let_others_in(now)
        buckets = [bucket for bucket in (self.requests, self.tokens) if bucket is not None]
        wait = max((bucket.wait_seconds(now) for bucket in buckets), default=0.0)
        if wait > 0:
            self.refused_at.append(now)
            told = wait if self.tells_retry_after else None
            return Outcome(Ending.LIMITED, wait_seconds=told, headers=self.headers(now))
        if self.requests is not None:
            self.requests.level -= 1
        if self.tokens is not None:
            self.tokens.level -= num_tokens
        self.accepted.append((now, num_tokens))
        return None

    def headers(self, now: float) -> dict[str, str]:
        """OpenAI's, as they stand at this moment."""
        found: dict[str, str] = {}
        for kind, bucket in (("requests", self.requests), ("tokens", self.tokens)):
            if self.tells_headers and bucket is not None:
                bucket.wait_seconds(now)
                seconds = (bucket.capacity - bucket.level) * 60 / bucket.per_minute
                found[f"x-ratelimit-limit-{kind}"] = f"{bucket.per_minute:.0f}"
                found[f"x-ratelimit-remaining-{kind}"] = f"{max(0, int(bucket.level))}"
                found[f"x-ratelimit-reset-{kind}"] = f"{seconds:.3f}s"
        return found

    def _let_others_in(self, now: float) -> None:
        while self.requests is not None and self.others_per_minute and self._others_at <= now:
            if self.requests.wait_seconds(self._others_at) <= 0:
                self.requests.level -= 1
            self._others_at += 60 / self.others_per_minute


MAX_TOKENS = 1024


@dataclass
class Call:
    """One request, its true tokens, what was reserved for it, and how it ended."""

    num_characters: int
    prompt_tokens: int
    completion_tokens: int
    reserved_tokens: int = 0
    sent_at: float = 0.0
    outcome: Outcome | None = None


def like_a_note(draw: random.Random) -> Call:
    return Call(4000, 1000, 400)


Event = tuple[float, int, Call]
"""When, a number that no other has, and the call that is sent then, or ends then."""


@dataclass
class Clients:
    """So many requests at a time, as many as the limiter allows, for as long as there is time."""

    limiter: Limiter
    provider: Provider
    max_in_flight: int = 2000
    draw_call: Callable[[random.Random], Call] = like_a_note
    estimates: TokenEstimates = field(default_factory=TokenEstimates)
    sent_at: list[float] = field(default_factory=list)
    _events: list[Event] = field(default_factory=list)
    _numbers: "count[int]" = field(default_factory=count)
    _draw: random.Random = field(default_factory=lambda: random.Random(1))
    _in_flight: int = 0

    def run(self, until: float, idle: Sequence[tuple[float, float]] = ()) -> None:
        """Lets time pass from 0 on; nothing is asked for in the spells of `idle`."""
        now = 0.0
        while now < until:
            while self._events and self._events[0][0] <= now:
                self._meet(heapq.heappop(self._events))
            if not any(begin <= now < end for begin, end in idle):
                self._ask(now)
            following = [event[0] for event in self._events[:1] if event[0] > now]
            now = min([now + HORIZON_SECONDS / 2, *following])

    def _ask(self, now: float) -> None:
        while self._in_flight < self.max_in_flight:
            call = self.draw_call(self._draw)
            call.reserved_tokens = self.estimates.expected_tokens("note", call.num_characters, MAX_TOKENS)
            send_at = self.limiter.reserve(call.reserved_tokens, now, HORIZON_SECONDS)
            if send_at is None:
                return
            call.sent_at = send_at
            self._in_flight += 1
            self._push(send_at, call)

    def _push(self, moment: float, call: Call) -> None:
        heapq.heappush(self._events, (moment, next(self._numbers), call))

    def _meet(self, event: Event) -> None:
        now, _number, call = event
        if call.outcome is not None:
            self._end(now, call, call.outcome)
            return
        self.sent_at.append(now)
        used = (call.prompt_tokens, call.completion_tokens)
        refusal = self.provider.meet(now, sum(used))
        call.outcome = refusal or Outcome(Ending.ANSWERED, *used, headers=self.provider.headers(now))
        # The median of an answer is a second; a refusal comes at once.
        self._push(now + (0.05 if refusal else self._draw.lognormvariate(0.0, 0.6)), call)

    def _end(self, now: float, call: Call, outcome: Outcome) -> None:
        self._in_flight -= 1
        used = outcome.prompt_tokens + outcome.completion_tokens
        tell_limiter(self.limiter, outcome, call.sent_at, now)
        self.limiter.settle(call.reserved_tokens, used, now)
        if outcome.ending is Ending.ANSWERED:
            self.estimates.observe("note", call.num_characters, call.prompt_tokens, call.completion_tokens)


def most_in_a_minute(moments: Sequence[float]) -> int:
    """Over every minute that begins with one of the moments."""
    return int(heaviest_minute([(moment, 1.0) for moment in moments]))


def heaviest_minute(amounts: Sequence[tuple[float, float]]) -> float:
    """The largest sum over every minute that begins with one of the moments."""
    most, total = 0.0, 0.0
    inside: deque[tuple[float, float]] = deque()
    for moment, amount in amounts:
        inside.append((moment, amount))
        total += amount
        while inside[0][0] <= moment - 60.0:
            total -= inside.popleft()[1]
        most = max(most, total)
    return most
