"""The hard cap on spending: what a call may cost is set aside, under a durable mark, before it is sent. Pure.

The mark is an upper bound of everything that can have been spent. It is on storage before a reservation
passes it, so after a kill the difference between the mark and what the journal shows as settled counts as
spent too. Invariant: settled + unsettled + outstanding <= mark <= budget.
"""

import json
import math

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import ArtifactError

MARK_NAME = "spending.json"
NANOS = 1_000_000_000
HEADROOM_SHARE = 0.25
"""The mark is raised by so much of what is outstanding at once, so that not every call writes it."""


class Purse:
    """Money in US dollars, kept in whole nano-dollars so that sums do not drift. Budget 0 = no cap."""

    def __init__(self, budget_usd: float, settled_usd: float, mark_usd: float) -> None:
        self._budget = _nanos(budget_usd)
        self._settled = _nanos(settled_usd)
        self._mark = max(_nanos(mark_usd), self._settled)
        self._unsettled = self._mark - self._settled
        self._outstanding = 0

    @property
    def settled_usd(self) -> float:
        return self._settled / NANOS

    @property
    def unsettled_usd(self) -> float:
        """What broken calls and killed runs may have been charged."""
        return self._unsettled / NANOS

    @property
    def outstanding_usd(self) -> float:
        return self._outstanding / NANOS

    @property
    def mark_usd(self) -> float:
        return self._mark / NANOS

    def needs(self, usd: float) -> float | None:
        """The mark that must be durable before `usd` more is reserved; None where the budget forbids it."""
        wanted = self._bound + _nanos(usd)
        if not self._budget or wanted <= self._mark <= self._budget:
            return self._mark / NANOS
        if wanted > self._budget:
            return None
        headroom = int((self._outstanding + _nanos(usd)) * HEADROOM_SHARE)
        return min(wanted + headroom, self._budget) / NANOS

    def covers(self, usd: float) -> bool:
        """Whether `usd` more may be reserved under the mark as it is."""
        return not self._budget or self._bound + _nanos(usd) <= min(self._mark, self._budget)

    def mark_written(self, usd: float) -> None:
        self._mark = _nanos(usd)

    def reserve(self, usd: float) -> None:
        """Sets money aside; `needs` has allowed it."""
        self._outstanding += _nanos(usd)

    def adopt(self, usd: float) -> None:
        """Takes over what a killed run had set aside for calls that are still open."""
        nanos = _nanos(usd)
        self._unsettled = max(self._unsettled - nanos, 0)
        self._outstanding += nanos

    def settle(self, reserved_usd: float, spent_usd: float, unsettled_usd: float) -> None:
        """Ends a reservation: what the call cost, and what it may have cost on top."""
        self._outstanding -= _nanos(reserved_usd)
        self._settled += _nanos(spent_usd)
        self._unsettled += _nanos(unsettled_usd)

    def lowest_safe_mark(self) -> float:
        """A mark that still bounds everything, with a little room above it."""
        headroom = int(self._outstanding * HEADROOM_SHARE)
        return min(self._bound + headroom, max(self._budget, self._bound)) / NANOS

    def is_exhausted(self, usd: float) -> bool:
        """Whether `usd` more would pass the budget even if all calls in flight turned out free."""
        return bool(self._budget) and self._settled + self._unsettled + _nanos(usd) > self._budget

    @property
    def _bound(self) -> int:
        return self._settled + self._unsettled + self._outstanding


def read_mark(folder: Folder) -> float:
    """The mark that an earlier run has left, in US dollars; 0 where there is none."""
    if not folder.exists(MARK_NAME):
        return 0.0
    try:
        return float(json.loads(folder.read_bytes(MARK_NAME))["mark_usd"])
    except (ValueError, KeyError, TypeError):
        raise ArtifactError(
            f"{folder.uri}/{MARK_NAME} is damaged, so nobody knows what has been spent at most; write "
            '{"mark_usd": N} into it, N being what the provider\'s account shows'
        ) from None


def write_mark(folder: Folder, usd: float) -> None:
    folder.write_bytes(MARK_NAME, json.dumps({"mark_usd": usd}).encode())


def _nanos(usd: float) -> int:
    return math.ceil(usd * NANOS - 1e-6)
