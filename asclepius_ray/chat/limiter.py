"""How fast one may ask: gives out moments at which to send, and learns from what comes back. Pure.

Slots are evenly spaced at a little less than the limit; an idle spell leaves 0.4 s' worth of them, no more,
since providers count in windows much shorter than their minute. What a request takes of the tokens is
reserved by estimate and settled by the reported usage.
"""

import random
from collections import deque
from dataclasses import dataclass

from asclepius_ray.chat.rate_headers import Allowance, RateHeaders
from asclepius_ray.chat.retry_after import backoff_seconds

CATCH_UP_SECONDS = 0.4
PACE_SHARE = 1 - CATCH_UP_SECONDS / 60
"""Of the limit: so no minute holds more than the limit, what was caught up with included."""
SHORTEST_PAUSE_SECONDS = 0.05
DECREASE = 0.75
"""Of the rate that was accepted, where no limit is known or the known one does not hold."""
KNOWN_DECREASE = 0.95
"""Of a known limit at a single refusal."""
DOUBT_SECONDS = 10.0
"""A second refusal so soon after the first: the known limit is not ours alone, or not the true one."""
RECOVERY_SECONDS, RECOVERY_REQUESTS = 30.0, 60.0
"""Additive recovery: so long, and not in fewer requests, from half of the last good rate to all of it, and on
beyond it."""
OBSERVED_SECONDS, LEAST_OBSERVED = 10.0, 10


@dataclass(frozen=True)
class Limits:
    """Those of the run file; 0 = not told."""

    requests_per_minute: int = 0
    tokens_per_minute: int = 0


@dataclass(frozen=True)
class Learnt:
    """What a limiter knows beyond the run file, for the heir of one that was lost."""

    requests_per_minute: float | None = None
    """By headers, as the next one."""
    tokens_per_minute: float | None = None
    adaptive_per_minute: float | None = None
    """What refusals have left."""
    good_per_minute: float = 0.0
    share: float = 1.0
    pause_seconds: float = 0.0


class _Pace:
    """Slots of one kind, evenly spaced; an amount may be taken that no second holds, and is owed then."""

    def __init__(self, per_minute: float, now: float) -> None:
        self.per_minute = per_minute
        self._free_at = now

    def at(self, now: float) -> float:
        """When the next slot is free, not before now."""
        return max(now, self._free_at)

    def take(self, amount: float, now: float) -> None:
        # What lies idle is not saved up, beyond what a stall of ours may have cost; where not even one slot
        # is lost in that time, the next one would only come too early.
        saved_seconds = CATCH_UP_SECONDS if self.per_minute * CATCH_UP_SECONDS >= 60.0 else 0.0
        self._free_at = max(self._free_at, now - saved_seconds) + amount * 60.0 / self.per_minute

    def give_back(self, amount: float) -> None:
        """A negative amount is owed."""
        self._free_at -= amount * 60.0 / self.per_minute

    def hold_until(self, moment: float) -> None:
        self._free_at = max(self._free_at, moment)

    def change(self, per_minute: float, now: float) -> None:
        """What is owed or saved stays the same amount at the new pace."""
        if per_minute != self.per_minute:
            self._free_at = now + (self._free_at - now) * self.per_minute / per_minute
            self.per_minute = per_minute


class Limiter:
    """One endpoint's limits; all moments are monotonic seconds."""

    def __init__(self, limits: Limits, now_seconds: float) -> None:
        self._told = {
            "requests": float(limits.requests_per_minute),
            "tokens": float(limits.tokens_per_minute),
        }
        self._known = {kind: value or None for kind, value in self._told.items()}
        """The limits as they stand without refusals: told by the run file, else by headers."""
        self._heard: dict[str, dict[str, float]] = {"requests": {}, "tokens": {}}
        """Kind → endpoint → the limit in its headers: of several, the lowest holds for all of the account."""
        self._paces: dict[str, _Pace] = {}
        self._share = 1.0
        """Of the known limits, after single refusals."""
        self._adaptive: float | None = None
        """Requests a minute that refusals have left, below the known limit if there is one."""
        self._good_rate = 0.0
        self._slowed_at = float("-inf")
        self._recovered_at = now_seconds
        self._sent: deque[float] = deque()
        self._refused: deque[float] = deque()
        self._jitter = random.Random()
        self._pauses_in_a_row = 0
        self._paused_at = float("-inf")
        self.blocked_until = float("-inf")
        self.pause_reason = ""
        self._repace(now_seconds)

    @property
    def present_requests_per_minute(self) -> float | None:
        pace = self._paces.get("requests")
        return pace.per_minute if pace is not None else None

    @property
    def present_tokens_per_minute(self) -> float | None:
        pace = self._paces.get("tokens")
        return pace.per_minute if pace is not None else None

    def reserve(self, tokens: int, now: float, horizon_seconds: float) -> float | None:
        """The moment at which one request may be sent; None if that is beyond the horizon."""
        self._recover(now)
        send_at = max([now, self.blocked_until, *(pace.at(now) for pace in self._paces.values())])
        if send_at > now + horizon_seconds:
            return None
        for kind, pace in self._paces.items():
            pace.take(tokens if kind == "tokens" else 1.0, now)
        self._sent.append(send_at)
        while len(self._sent) > LEAST_OBSERVED and self._sent[0] < now - OBSERVED_SECONDS:
            self._sent.popleft()
        return send_at

    def settle(self, reserved_tokens: int, used_tokens: int, now: float) -> None:
        """Gives back what was reserved too much, or owes what was reserved too little."""
        if (pace := self._paces.get("tokens")) is not None:
            pace.give_back(reserved_tokens - used_tokens)

    def answered(self, now: float) -> None:
        self._pauses_in_a_row = 0

    def refused(self, wait_seconds: float | None, sent_at: float, now: float) -> None:
        """A 429: all pause. Refusals of what was sent before the pause do not stack up."""
        self._refused.append(sent_at)
        is_of_this_pause = sent_at <= self._paused_at
        if is_of_this_pause and wait_seconds is None:
            return
        if not is_of_this_pause:
            self._slow_down(now)
            self._paused_at = now
            self._pauses_in_a_row += 1
        if wait_seconds is None:
            wait_seconds = backoff_seconds(self._pauses_in_a_row, self._jitter)
        self._pause(now + max(wait_seconds, SHORTEST_PAUSE_SECONDS), now)

    def heard(self, headers: RateHeaders, sent_at: float, now: float, whose: str = "") -> None:
        """The endpoint's own numbers: a limit that the run file does not tell, an allowance used up."""
        allowances = {"requests": headers.requests, "tokens": headers.tokens}
        for kind, allowance in allowances.items():
            if allowance.per_minute is not None and not self._told[kind]:
                self._heard[kind][whose] = allowance.per_minute
                self._known[kind] = min(self._heard[kind].values())
        self._repace(now)
        for kind, allowance in allowances.items():
            if allowance.remaining is not None and allowance.remaining < 1:
                self._wait_for_allowance(kind, allowance, sent_at, now)

    def learnt(self, now: float) -> Learnt:
        by_headers = {kind: value for kind, value in self._known.items() if not self._told[kind]}
        return Learnt(
            by_headers.get("requests"),
            by_headers.get("tokens"),
            self._adaptive,
            self._good_rate,
            self._share,
            max(self.blocked_until - now, 0.0),
        )

    def inherit(self, learnt: Learnt, now: float) -> None:
        """Takes over what a lost limiter knew, as one of its workers tells it; the strictest word counts."""
        for kind, told in (("requests", learnt.requests_per_minute), ("tokens", learnt.tokens_per_minute)):
            if told is not None and not self._told[kind]:
                self._known[kind] = min(told, self._known[kind] or told)
        if learnt.adaptive_per_minute is not None:
            self._adaptive = min(learnt.adaptive_per_minute, self._adaptive or learnt.adaptive_per_minute)
            self._good_rate = learnt.good_per_minute
            self._recovered_at = now
        self._share = min(self._share, learnt.share)
        self._pause(now + learnt.pause_seconds, now)
        self._repace(now)

    def _wait_for_allowance(self, kind: str, allowance: Allowance, sent_at: float, now: float) -> None:
        """A reply may be long on its way: what it says was so when its request came in."""
        if allowance.per_minute is not None:
            # One slot is enough to go on; the reset tells when all of them are back.
            self._paces[kind].hold_until(sent_at + 60.0 / allowance.per_minute)
        elif allowance.reset_seconds:
            self._pause(sent_at + allowance.reset_seconds, now)

    def _pause(self, until: float, now: float) -> None:
        if until > max(self.blocked_until, now):
            self.blocked_until = until
            self.pause_reason = f"the endpoint asks to wait {until - now:.0f} s (rate limit)"

    def _slow_down(self, now: float) -> None:
        is_known = any(value is not None for value in self._known.values())
        is_doubted = now - max(self._slowed_at, self.blocked_until) < DOUBT_SECONDS
        if is_known and self._adaptive is None and not is_doubted:
            self._share *= KNOWN_DECREASE
        else:
            accepted = self._accepted_per_minute(now)
            self._good_rate = max(min(accepted, self._adaptive or accepted), 1.0)
            self._adaptive = max(self._good_rate * DECREASE, 1.0)
        self._slowed_at = self._recovered_at = now
        self._repace(now)

    def _accepted_per_minute(self, now: float) -> float:
        """Of what was sent of late; a refusal is no reason to think that the others were too many."""
        sent = [moment for moment in self._sent if moment <= now]
        if not sent:
            return 60.0
        while self._refused and self._refused[0] < sent[0]:
            self._refused.popleft()
        accepted = max(len(sent) - len(self._refused), 1)
        return 60.0 * accepted / max(now - sent[0], 1.0)

    def _recover(self, now: float) -> None:
        """Additive: a share is made good within a minute, an adaptive rate probes on beyond what was good."""
        seconds = now - max(self._recovered_at, self.blocked_until)
        if seconds < 1.0 or (self._adaptive is None and self._share == 1.0):
            return
        self._recovered_at = now
        self._share = min(1.0, self._share + seconds / 60.0)
        if self._adaptive is not None:
            recovery_seconds = max(RECOVERY_SECONDS, 60.0 * RECOVERY_REQUESTS / self._good_rate)
            self._adaptive += seconds * 0.5 * self._good_rate / recovery_seconds
            known = self._known["requests"]
            if known is not None and self._adaptive >= known:
                self._adaptive = None
        self._repace(now)

    def _repace(self, now: float) -> None:
        rates = {
            kind: known * self._share * PACE_SHARE for kind, known in self._known.items() if known is not None
        }
        if self._adaptive is not None:
            rates["requests"] = min(self._adaptive, rates.get("requests", self._adaptive))
        for kind, rate in rates.items():
            if kind in self._paces:
                self._paces[kind].change(rate, now)
            else:
                self._paces[kind] = _Pace(rate, now)
