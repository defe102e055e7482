"""The desk's side of money: what a permit may cost is set aside durably before the permit is given."""

import asyncio
from collections.abc import Sequence

from asclepius_ray.artifacts import Folder
from asclepius_ray.chat.desk_queue import Permit
from asclepius_ray.chat.desk_storage import DeskStorage
from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.chat.estimates import largest_usd
from asclepius_ray.chat.gate import Ending, Load, Outcome
from asclepius_ray.chat.prices import cost_usd
from asclepius_ray.chat.purse import Purse, read_mark, write_mark


class DeskMoney:
    """The purse of one endpoint, with its mark on storage. Without a price everything costs 0 here."""

    def __init__(self, folder: Folder, endpoint: Endpoint, storage: DeskStorage) -> None:
        self._folder = folder
        self._price = endpoint.price
        self._budget_usd = endpoint.budget_usd
        self._num_extra_bytes = endpoint.num_extra_bytes
        totals = storage.journal.totals().values()
        settled = sum(step.known_usd for step in totals)
        unsettled = sum(step.unsettled_usd for step in totals)
        mark = max(read_mark(folder), settled + unsettled)
        self._purse = Purse(endpoint.budget_usd, settled, mark)
        self._writing = asyncio.Lock()

    @property
    def unsettled_usd(self) -> float:
        return self._purse.unsettled_usd

    async def allows(self, load: Load) -> bool:
        """Whether the call fits the budget; writes a higher mark first where it has to."""
        return await self._allows_usd(self._bound(load))

    async def _allows_usd(self, usd: float) -> bool:
        if not self._budget_usd:
            return True
        async with self._writing:
            mark = self._purse.needs(usd)
            if mark is None:
                return False
            if mark > self._purse.mark_usd:
                await asyncio.to_thread(write_mark, self._folder, mark)
                self._purse.mark_written(mark)
        return True

    def reserve(self, load: Load) -> float:
        """Sets aside the most that the call can cost and returns it."""
        bound = self._bound(load)
        self._purse.reserve(bound)
        return bound

    async def reserve_all(self, loads: Sequence[Load]) -> bool:
        """Sets aside the most that a whole batch can cost; False where the budget forbids it."""
        bound = sum(self._bound(load) for load in loads)
        if not await self._allows_usd(bound):
            return False
        self._purse.reserve(bound)
        return True

    def adopt_all(self, loads: Sequence[Load]) -> None:
        """A batch of an earlier run is open: what it may cost is under the mark that was left."""
        self._purse.adopt(sum(self._bound(load) for load in loads))

    def settle_one(self, load: Load, tokens: tuple[int, int] | None) -> None:
        """Ends a call of a batch, with its tokens in and out; None where it may have cost its bound."""
        bound = self._bound(load)
        if tokens is None:
            self._purse.settle(bound, 0.0, bound)
            return
        self._purse.settle(bound, cost_usd(self._price, *tokens) or 0.0, 0.0)

    def settle(self, permit: Permit, outcome: Outcome) -> None:
        if permit.is_of_lost_desk:
            return
        if outcome.ending is Ending.BROKEN or not outcome.are_tokens_known:
            self._purse.settle(permit.reserved_usd, 0.0, permit.reserved_usd)
            return
        spent = cost_usd(self._price, outcome.prompt_tokens, outcome.completion_tokens)
        self._purse.settle(permit.reserved_usd, spent or 0.0, 0.0)

    def lose(self, permit: Permit) -> None:
        """The worker died: the call may have been charged, and counts as spent for good."""
        if not permit.is_of_lost_desk:
            self._purse.settle(permit.reserved_usd, 0.0, permit.reserved_usd)

    def give_back(self, permit: Permit) -> None:
        if not permit.is_of_lost_desk:
            self._purse.settle(permit.reserved_usd, 0.0, 0.0)

    def is_exhausted(self, load: Load) -> bool:
        """True where not even the end of all calls in flight would leave room for this one."""
        return self._purse.is_exhausted(self._bound(load))

    async def tighten(self) -> None:
        """Lowers the mark to what can have been spent by now; without a budget there is none."""
        if not self._budget_usd:
            return
        async with self._writing:
            mark = self._purse.lowest_safe_mark()
            if mark < self._purse.mark_usd:
                await asyncio.to_thread(write_mark, self._folder, mark)
                self._purse.mark_written(mark)

    def explain(self) -> str:
        purse = self._purse
        return (
            f"budget_usd = {self._budget_usd:g} is reached: {purse.settled_usd:.4f} USD are spent, "
            f"{purse.unsettled_usd:.4f} USD more may have been charged for calls that broke off, and the "
            "next call could pass the budget; what was bought is kept: raise it and run again"
        )

    def _bound(self, load: Load) -> float:
        if self._price is None:
            return 0.0
        num_bytes = load.num_bytes + self._num_extra_bytes
        return largest_usd(self._price, num_bytes, load.num_messages, load.max_tokens)
