"""The desk's side of money: what a permit may cost is set aside durably before the permit is given."""

from collections.abc import Sequence

from asclepius_ray.artifacts import Folder
from asclepius_ray.chat.desk_queue import Permit
from asclepius_ray.chat.desk_storage import DeskStorage
from asclepius_ray.chat.durable_purse import DurablePurse, spent_in
from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.chat.estimates import largest_usd
from asclepius_ray.chat.gate import Ending, Load, Outcome
from asclepius_ray.chat.prices import cost_usd


class DeskMoney:
    """The purse of one endpoint and one that it shares with others; every call is paid from both.

    Without a price everything costs 0 here.
    """

    def __init__(
        self, folder: Folder, endpoint: Endpoint, storage: DeskStorage, shared: DurablePurse | None
    ) -> None:
        self._price = endpoint.price
        self._num_extra_bytes = endpoint.num_extra_bytes
        spent = spent_in(folder, storage.journal)
        self.own = DurablePurse(folder, "budget_usd", endpoint.budget_usd, *spent)
        self._purses = (self.own,) if shared is None else (self.own, shared)

    @property
    def unsettled_usd(self) -> float:
        return self.own.purse.unsettled_usd

    async def allows(self, load: Load) -> bool:
        """Whether the call fits the budgets; writes higher marks first where it has to.

        True holds until the caller awaits anything: `reserve` follows at once.
        """
        return await self._allows_usd(self._bound(load))

    async def _allows_usd(self, usd: float) -> bool:
        # Again where another desk has taken from the shared purse while a mark was being written.
        while not all(found.purse.covers(usd) for found in self._purses):
            for found in self._purses:
                if not await found.raise_mark(usd):
                    return False
        return True

    def reserve(self, load: Load) -> float:
        """Sets aside the most that the call can cost and returns it."""
        bound = self._bound(load)
        self._reserve_usd(bound)
        return bound

    async def reserve_all(self, loads: Sequence[Load]) -> bool:
        """Sets aside the most that a whole batch can cost; False where the budget forbids it."""
        bound = sum(self._bound(load) for load in loads)
        if not await self._allows_usd(bound):
            return False
        self._reserve_usd(bound)
        return True

    def adopt_all(self, loads: Sequence[Load]) -> None:
        """A batch of an earlier run is open: what it may cost is under the mark that was left."""
        for found in self._purses:
            found.purse.adopt(sum(self._bound(load) for load in loads))

    def settle_one(self, load: Load, tokens: tuple[int, int] | None) -> None:
        """Ends a call of a batch, with its tokens in and out; None where it may have cost its bound."""
        bound = self._bound(load)
        if tokens is None:
            self._settle_usd(bound, 0.0, bound)
            return
        self._settle_usd(bound, cost_usd(self._price, *tokens) or 0.0, 0.0)

    def settle(self, permit: Permit, outcome: Outcome) -> None:
        if permit.is_of_lost_desk:
            return
        if outcome.ending is Ending.BROKEN or not outcome.are_tokens_known:
            self._settle_usd(permit.reserved_usd, 0.0, permit.reserved_usd)
            return
        spent = cost_usd(self._price, outcome.prompt_tokens, outcome.completion_tokens)
        self._settle_usd(permit.reserved_usd, spent or 0.0, 0.0)

    def lose(self, permit: Permit) -> None:
        """The worker died: the call may have been charged, and counts as spent for good."""
        if not permit.is_of_lost_desk:
            self._settle_usd(permit.reserved_usd, 0.0, permit.reserved_usd)

    def give_back(self, permit: Permit) -> None:
        if not permit.is_of_lost_desk:
            self._settle_usd(permit.reserved_usd, 0.0, 0.0)

    def why_exhausted(self, load: Load) -> str:
        """What to tell where even the end of all calls in flight leaves no room for this one, else ""."""
        bound = self._bound(load)
        return next((found.explain() for found in self._purses if found.purse.is_exhausted(bound)), "")

    async def tighten(self) -> None:
        """Lowers the marks to what can have been spent by now."""
        for found in self._purses:
            await found.tighten()

    def _reserve_usd(self, usd: float) -> None:
        for found in self._purses:
            found.purse.reserve(usd)

    def _settle_usd(self, reserved_usd: float, spent_usd: float, unsettled_usd: float) -> None:
        for found in self._purses:
            found.purse.settle(reserved_usd, spent_usd, unsettled_usd)

    def _bound(self, load: Load) -> float:
        if self._price is None:
            return 0.0
        num_bytes = load.num_bytes + self._num_extra_bytes
        return largest_usd(self._price, num_bytes, load.num_messages, load.max_tokens)
