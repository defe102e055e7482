"""Whether the endpoint as a whole has stopped answering: then it is tried gently until it is back."""

from asclepius_ray.chat.gate import Ending

LEAST_BROKEN = 8
LEAST_SECONDS = 3.0
TRY_INTERVAL_SECONDS = 1.0
SUSPICIOUS_INTERVAL_SECONDS = 0.1
"""Before it is sure: rows that wait for their next try keep no place, so all of them would storm it."""


class Outage:
    """Watches how attempts end; time is passed in as monotonic seconds."""

    def __init__(self, longest_seconds: float) -> None:
        self._longest_seconds = longest_seconds
        self._num_broken = 0
        self._broken_since = 0.0
        self._tried_at = float("-inf")

    def observe(self, ending: Ending, now: float) -> None:
        """Takes note of one attempt; a refusal for its rate tells nothing of the endpoint's health."""
        if ending in (Ending.ANSWERED, Ending.REJECTED):
            self._num_broken = 0
        elif ending in (Ending.SERVER_ERROR, Ending.BROKEN):
            if self._num_broken == 0:
                self._broken_since = now
            self._num_broken += 1

    def is_on(self, now: float) -> bool:
        return self._num_broken >= LEAST_BROKEN and now - self._broken_since >= LEAST_SECONDS

    def may_try(self, now: float) -> bool:
        """True where an attempt may be made: during an outage one a second is enough."""
        if self._num_broken < LEAST_BROKEN:
            return True
        interval = TRY_INTERVAL_SECONDS if self.is_on(now) else SUSPICIOUS_INTERVAL_SECONDS
        return now - self._tried_at >= interval

    def tried(self, now: float) -> None:
        self._tried_at = now

    def has_lasted_too_long(self, now: float) -> bool:
        return self.is_on(now) and now - self._broken_since > self._longest_seconds

    def describe(self, now: float) -> str:
        """For the progress line; "" where there is no outage."""
        if not self.is_on(now):
            return ""
        return f"no answer from the endpoint for {now - self._broken_since:.0f} s, trying again"

    def explain(self, host: str) -> str:
        return (
            f"{host} has answered nobody for {self._longest_seconds:.0f} s (max_outage_seconds); what was "
            "bought is kept: run the same command again when it is back"
        )
