"""Places in flight shared by all workers: by demand, fairly, and never more than the limit. Pure.

A place moves from one worker to another only after its holder has reported it free.
"""

UNLIMITED = 1_000_000


class Quotas:
    """`limit` places; 0 = unlimited."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._wanted: dict[str, int] = {}
        self._told: dict[str, int] = {}
        """The quota that each worker was told last; it goes on with it until it hears the next one."""
        self._promised: dict[str, int] = {}
        """The most that a worker may be using before it speaks again."""

    def report(self, worker: str, in_flight: int, wanted: int) -> int:
        """Takes a worker's figures and returns how many places it may use from now on."""
        if not self._limit:
            return UNLIMITED
        self._wanted[worker] = wanted
        others = sum(promised for name, promised in self._promised.items() if name != worker)
        quota = max(min(self._fair_share(worker), self._limit - others), 0)
        self._promised[worker] = max(quota, self._told.get(worker, 0), in_flight)
        self._told[worker] = quota
        return quota

    def forget(self, worker: str) -> None:
        self._wanted.pop(worker, None)
        self._told.pop(worker, None)
        self._promised.pop(worker, None)

    def _fair_share(self, worker: str) -> int:
        """Max-min fair: who wants less than an equal part leaves the rest to the others.

        What nobody wants stays with whoever has it; the last places of an uneven split go by name.
        """
        left, names = self._limit, sorted(self._wanted, key=lambda name: (self._wanted[name], name))
        for position, name in enumerate(names):
            part = left // (len(names) - position)
            share = min(self._wanted[name], part)
            if name == worker:
                return max(share, 1) if self._wanted[name] and left else share
            left -= share
        return left
