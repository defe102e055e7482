"""A rate with a little room, kept as a level that rises with time; pure.

A bucket fills at the limit's rate and holds five seconds of it, or one request: over any minute a key gets
at most 65 seconds of its limit. A larger one would let too much through at once; in a smaller one the
seconds between two large requests would run over. It starts with one second of it: a place that keeps
limits and is started anew must not hand out again what the lost one gave.
"""

ROOM_SECONDS = 5.0
ENOUGH_SECONDS = 1.0


class Bucket:
    """All moments are monotonic seconds."""

    def __init__(self, per_minute: float, now: float) -> None:
        self._per_second = per_minute / 60.0
        self._capacity = max(self._per_second * ROOM_SECONDS, 1.0)
        self._enough = max(self._per_second * ENOUGH_SECONDS, 1.0)
        self._level = self._enough
        self._filled_at = now

    def seconds_until(self, amount: float, now: float) -> float:
        """How long until so much may be taken; 0 = now. What is larger than a second of the limit needs no
        more than that and leaves a debt: the rate holds over time, and nothing is too large for ever."""
        self._fill(now)
        missing = min(amount, self._enough) - self._level
        # A rounding error must not refuse what a client waited for exactly as long as it was told.
        return missing / self._per_second if missing > 1e-6 * self._enough else 0.0

    def take(self, amount: float, now: float) -> None:
        """Takes it, though it be a debt; less than nothing is given back."""
        self._fill(now)
        self._level = min(self._capacity, self._level - amount)

    def _fill(self, now: float) -> None:
        self._level = min(self._capacity, self._level + (now - self._filled_at) * self._per_second)
        self._filled_at = now
