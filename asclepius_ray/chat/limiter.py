"""How fast one may ask: gives out moments at which to send, and learns from what comes back. Pure.

Slots are evenly spaced at exactly the limit; an idle spell leaves half a second's worth of them, no more,
since providers count in windows much shorter than their minute. What a request takes of the tokens is
reserved by estimate and settled by the reported usage.
"""

import random
from collections import deque
from dataclasses import dataclass

from asclepius_ray.chat.rate_headers import Allowance, RateHeaders
from asclepius_ray.chat.retry_after import backoff_seconds

CATCH_UP_SECONDS = 0.4
PACE_SHARE = 0.997
"""Of the limit: what a stall of ours takes out of the provider's bucket has to come back some time."""
SHORTEST_PAUSE_SECONDS = 0.05
DECREASE = 0.75
"""Of the observed rate, where the endpoint tells no limit."""
TOLD_DECREASE = 0.95
"""Of a limit that was told: somebody else may use the same account."""
RECOVERY_SECONDS = 30.0
"""Additive recovery: so long from half of the last known good rate to all of it, and on beyond it."""
OBSERVED_SECONDS = 5.0


@dataclass(frozen=True)
class Limits:
    """Those of the run file; 0 = not told."""

    requests_per_minute: int = 0
    tokens_per_minute: int = 0


class _Pace:
    """Slots of one kind, evenly spaced; an amount may be taken that no second holds, and is owed then."""

    def __init__(self, per_minute: float, now: float) -> None:
        self.per_minute = per_minute
        self._free_at = now

    def at(self, now: float) -> float:
        """When the next slot is free, not before now."""
        return max(now, self._free_at)

    def take(self, amount: float, now: float, least: float) -> None:
        catch_up = max(CATCH_UP_SECONDS, least * 60.0 / self.per_minute)
        self._free_at = max(self._free_at, now - catch_up) + amount * 60.0 / self.per_minute

    def give_back(self, amount: float) -> None:
        """A negative amount is owed."""
        self._free_at -= amount * 60.0 / self.per_minute

    def start_anew(self, now: float) -> None:
        self._free_at = max(self._free_at, now)

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
        self._paces: dict[str, _Pace] = {}
        self._share = 1.0
        self._adaptive: float | None = None
        """Requests a minute that refusals have left, where no limit is told."""
        self._good_rate = 0.0
        self._recovered_at = now_seconds
        self._sent: deque[float] = deque()
        self._jitter = random.Random()
        self._pauses_in_a_row = 0
        self._paused_at = float("-inf")
        self.blocked_until = float("-inf")
        self.num_refusals = 0
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
        send_at = max(now, self.blocked_until)
        for pace in self._paces.values():
            send_at = max(send_at, pace.at(now))
        if send_at > now + horizon_seconds:
            return None
        self._recover(now)
        for kind, pace in self._paces.items():
            # Slots that lie idle while the other kind binds are not saved up.
            pace.take(tokens if kind == "tokens" else 1.0, now, least=1.0 if kind == "requests" else tokens)
        self._sent.append(send_at)
        while self._sent[0] < now - OBSERVED_SECONDS:
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
        self.num_refusals += 1
        is_of_this_pause = sent_at <= self._paused_at
        if is_of_this_pause and wait_seconds is None:
            return
        if not is_of_this_pause:
            self._paused_at = now
            self._pauses_in_a_row += 1
            self._slow_down(now)
        if wait_seconds is None:
            wait_seconds = backoff_seconds(self._pauses_in_a_row, self._jitter)
        self._pause(max(wait_seconds, SHORTEST_PAUSE_SECONDS), now)

    def heard(self, headers: RateHeaders, sent_at: float, now: float) -> None:
        """The endpoint's own numbers: a limit that the run file does not tell, an allowance used up."""
        for kind, allowance in (("requests", headers.requests), ("tokens", headers.tokens)):
            if allowance.per_minute is not None and not self._told[kind]:
                self._known[kind] = allowance.per_minute
            self._pause_if_used_up(allowance, now)
        self._repace(now)

    def restart(self, now: float) -> None:
        """For the heir of a limiter that was lost: nothing is saved up, the first slot is now."""
        for pace in self._paces.values():
            pace.start_anew(now)

    def _pause_if_used_up(self, allowance: Allowance, now: float) -> None:
        if allowance.remaining is not None and allowance.remaining < 1 and allowance.reset_seconds:
            # One slot is enough to go on; the reset tells when all of them are back.
            limit = allowance.per_minute or allowance.remaining
            wait = min(allowance.reset_seconds, 60.0 / limit if limit else allowance.reset_seconds)
            self._pause(max(wait, SHORTEST_PAUSE_SECONDS), now)

    def _pause(self, seconds: float, now: float) -> None:
        if now + seconds > self.blocked_until:
            self.blocked_until = now + seconds
            self.pause_reason = f"the endpoint asks to wait {seconds:.0f} s (rate limit)"

    def _slow_down(self, now: float) -> None:
        if self._known["requests"] is not None or self._known["tokens"] is not None:
            self._share = max(0.5, self._share * TOLD_DECREASE)
        else:
            recent = [moment for moment in self._sent if now - OBSERVED_SECONDS <= moment <= now]
            span = max(now - recent[0], 0.5) if recent else 1.0
            observed = 60.0 * max(len(recent), 1) / span
            base = min(observed, self._adaptive) if self._adaptive is not None else observed
            self._good_rate = max(base, 1.0)
            self._adaptive = max(base * DECREASE, 1.0)
        self._recovered_at = now
        self._repace(now)

    def _recover(self, now: float) -> None:
        """Additive: a told limit is back within a minute, an adaptive one probes on beyond what was good."""
        seconds = now - max(self._recovered_at, self.blocked_until)
        if seconds < 1.0:
            return
        self._recovered_at = now
        if self._adaptive is not None:
            self._adaptive += seconds * self._good_rate * 0.5 / RECOVERY_SECONDS
            self._repace(now)
        elif self._share < 1.0:
            self._share = min(1.0, self._share + seconds / 60.0)
            self._repace(now)

    def _repace(self, now: float) -> None:
        rates = {
            kind: known * self._share * PACE_SHARE for kind, known in self._known.items() if known is not None
        }
        if self._adaptive is not None and "requests" not in rates:
            rates["requests"] = self._adaptive
        for kind, rate in rates.items():
            if kind in self._paces:
                self._paces[kind].change(rate, now)
            else:
                self._paces[kind] = _Pace(rate, now)
