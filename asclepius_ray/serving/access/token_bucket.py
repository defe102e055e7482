"""A key's tokens per minute, where what a request will use is known at its end alone; pure.

A request reserves its prompt and its longest answer. Held against that whole reservation until its end, a
key whose answers are shorter would get a fraction of its limit: more of it would be reserved than used. So
an open request counts as much as this key's last answers used of their reservations; at its end it counts
what it used, and all that are open are reckoned anew.

The difference is lent, and a key that suddenly uses all that it reserves keeps it. Therefore no more than
one minute's limit is ever lent, the rest of a reservation counts in full, and a debt is paid by waiting:
over time the limit holds whatever a key does. What that costs: a key whose open requests together reserve
more than a minute's limit beyond what they use gets less than its limit, until it asks for shorter answers.
"""

from asclepius_ray.serving.access.bucket import Bucket

LENT_MINUTES = 1.0
FORGOTTEN_SHARE = 0.05
"""Of what is known, with every answer: about the last forty count."""


class TokenBucket:
    """All moments are monotonic seconds."""

    def __init__(self, per_minute: float, now: float) -> None:
        self._bucket = Bucket(per_minute, now)
        self._most_lent = per_minute * LENT_MINUTES
        self._open_tokens = 0
        """Reserved by all that is open."""
        self._ended_tokens, self._ended_used = 0.0, 0.0
        """Reserved and used by the last that ended."""

    def seconds_until(self, tokens: int, now: float) -> float:
        """How long until a request may reserve so many tokens, if none of the open ones ends; 0 = now."""
        return self._bucket.seconds_until(self._cost(tokens), now)

    def take(self, tokens: int, now: float) -> None:
        """Reserves them, whether there is room or not."""
        self._bucket.take(self._cost(tokens), now)
        self._open_tokens += tokens

    def settle(self, tokens: int, used_tokens: int | None, now: float) -> None:
        """A request is over that reserved `tokens`; None = its use is unknown, and all of it counts."""
        before = self._counted(self._open_tokens)
        self._open_tokens -= tokens
        # One that ended before it had a place says nothing about answers.
        if used_tokens:
            self._ended_tokens += tokens - FORGOTTEN_SHARE * self._ended_tokens
            self._ended_used += used_tokens - FORGOTTEN_SHARE * self._ended_used
        used = tokens if used_tokens is None else used_tokens
        self._bucket.take(self._counted(self._open_tokens) + used - before, now)

    def _cost(self, tokens: int) -> float:
        return self._counted(self._open_tokens + tokens) - self._counted(self._open_tokens)

    def _counted(self, tokens: float) -> float:
        """What so many reserved tokens count for."""
        used_share = self._ended_used / self._ended_tokens if self._ended_tokens else 1.0
        return max(used_share * tokens, tokens - self._most_lent)
