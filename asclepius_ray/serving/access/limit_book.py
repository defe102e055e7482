"""The limits of all keys over all replicas, as one place keeps them; pure.

A replica tells with every beat what it has open, so that the count outlives the loss of this place, and
what a lost replica had open ends with it.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from asclepius_ray.serving.access.allowance import Allowance, LimitRefusal
from asclepius_ray.serving.access.keys import KeyLimits

SILENT_SECONDS = 15.0
"""A replica that says nothing for so long is lost."""


@dataclass(frozen=True)
class Grant:
    """One request that a key's limits let through."""

    key_id: str
    reserved_tokens: int


class LimitBook:
    """All moments are monotonic seconds of the place where it is."""

    def __init__(self) -> None:
        self._allowances: dict[str, tuple[KeyLimits, Allowance]] = {}
        self._open: dict[str, dict[str, Grant]] = {}
        """By replica and the grant's id."""
        self._heard_at: dict[str, float] = {}
        self._num_open: Counter[str] = Counter()

    @property
    def num_replicas(self) -> int:
        return max(1, len(self._heard_at))

    def take(
        self, replica_id: str, grant_id: str, grant: Grant, limits: KeyLimits, now: float
    ) -> LimitRefusal | None:
        """Lets a request of a key through, or says which limit is in the way."""
        self._hear(replica_id, now)
        refusal = self._allowance(grant.key_id, limits, now).take(
            grant.reserved_tokens, self._num_open[grant.key_id], now
        )
        if refusal is None:
            self._add(replica_id, grant_id, grant)
        return refusal

    def settle(self, replica_id: str, grant_id: str, used_tokens: int, now: float) -> None:
        """A request is over; a second word on it changes nothing."""
        self._remove(replica_id, grant_id, used_tokens, now)

    def beat(
        self, replica_id: str, is_open: Mapping[str, Grant], pending: Collection[str], now: float
    ) -> None:
        """What a replica has open now; `pending` are grants that it asked for and has no answer to yet, and
        those of which it is just telling the end."""
        self._hear(replica_id, now)
        known = self._open.setdefault(replica_id, {})
        for grant_id in [found for found in known if found not in is_open and found not in pending]:
            self._remove(replica_id, grant_id, None, now)
        for grant_id, grant in is_open.items():
            if grant_id not in known:
                self._add(replica_id, grant_id, grant)
                if grant.key_id in self._allowances:
                    self._allowances[grant.key_id][1].hold(grant.reserved_tokens, now)
        for lost in [found for found, heard in self._heard_at.items() if now - heard > SILENT_SECONDS]:
            self.leave(lost, now)

    def leave(self, replica_id: str, now: float) -> None:
        """A replica has ended, and all that it had open."""
        for grant_id in list(self._open.get(replica_id, {})):
            self._remove(replica_id, grant_id, None, now)
        self._open.pop(replica_id, None)
        self._heard_at.pop(replica_id, None)

    def _hear(self, replica_id: str, now: float) -> None:
        self._heard_at[replica_id] = now

    def _allowance(self, key_id: str, limits: KeyLimits, now: float) -> Allowance:
        found = self._allowances.get(key_id)
        if found is None or found[0] != limits:
            grants = (grant for grants in self._open.values() for grant in grants.values())
            open_tokens = sum(grant.reserved_tokens for grant in grants if grant.key_id == key_id)
            allowance = Allowance(limits, now, open_tokens=open_tokens)
            found = self._allowances[key_id] = (limits, allowance)
        return found[1]

    def _add(self, replica_id: str, grant_id: str, grant: Grant) -> None:
        self._open.setdefault(replica_id, {})[grant_id] = grant
        self._num_open[grant.key_id] += 1

    def _remove(self, replica_id: str, grant_id: str, used_tokens: int | None, now: float) -> None:
        grant = self._open.get(replica_id, {}).pop(grant_id, None)
        if grant is None:
            return
        self._num_open[grant.key_id] -= 1
        if grant.key_id in self._allowances:
            self._allowances[grant.key_id][1].settle(grant.reserved_tokens, used_tokens, now)
