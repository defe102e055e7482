"""A purse with its mark on storage: before money is set aside, a mark that covers it is durable.

The desks of one process, on one loop, may pay from the same one.
"""

import asyncio
from dataclasses import dataclass

from asclepius_ray.artifacts import Folder
from asclepius_ray.chat.journal.journal import Journal
from asclepius_ray.chat.purse import Purse, read_mark, write_mark


@dataclass(frozen=True)
class PurseFigures:
    """A purse at one moment, in US dollars."""

    settled_usd: float
    unsettled_usd: float
    """What broken calls and killed runs may have been charged on top."""
    budget_usd: float


class DurablePurse:
    """The purse behind the setting `name`, with its mark in `folder`; budget 0 = no cap, and no mark."""

    def __init__(
        self, folder: Folder, name: str, budget_usd: float, settled_usd: float, most_usd: float
    ) -> None:
        self._folder = folder
        self._name = name
        self._budget_usd = budget_usd
        self.purse = Purse(budget_usd, settled_usd, max(most_usd, read_mark(folder)))
        self._writing = asyncio.Lock()

    async def raise_mark(self, usd: float) -> bool:
        """Makes a mark durable that covers `usd` more; False where the budget forbids it."""
        if not self._budget_usd:
            return True
        async with self._writing:
            mark = self.purse.needs(usd)
            if mark is None:
                return False
            if mark > self.purse.mark_usd:
                await asyncio.to_thread(write_mark, self._folder, mark)
                self.purse.mark_written(mark)
        return True

    async def tighten(self) -> None:
        """Lowers the mark to what can have been spent by now; without a budget there is none."""
        if not self._budget_usd:
            return
        async with self._writing:
            mark = self.purse.lowest_safe_mark()
            if mark < self.purse.mark_usd:
                # Lower here before it is on storage: what is set aside meanwhile stays under both.
                self.purse.mark_written(mark)
                await asyncio.to_thread(write_mark, self._folder, mark)

    def figures(self) -> PurseFigures:
        """What is spent, what more may be, and the budget, at this moment."""
        return PurseFigures(self.purse.settled_usd, self.purse.unsettled_usd, self._budget_usd)

    def explain(self) -> str:
        """Why nothing more can be bought, and what to do."""
        return (
            f"{self._name} = {self._budget_usd:g} is reached: {self.purse.settled_usd:.4f} USD are spent, "
            f"{self.purse.unsettled_usd:.4f} USD more may have been charged for calls that broke off, and "
            "the next call could pass the budget; what was bought is kept: raise it and run again"
        )


def spent_in(folder: Folder, journal: Journal) -> tuple[float, float]:
    """What a journal shows as settled, and the most that can have been spent on it, in US dollars."""
    totals = journal.totals().values()
    settled = sum(step.known_usd for step in totals)
    return settled, max(read_mark(folder), settled + sum(step.unsettled_usd for step in totals))
