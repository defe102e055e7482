"""One endpoint of an evaluation, asked through a desk in this process: its journal, its limit, its budget.

An evaluation's calls are HTTP and little else, so one process sends them all; what was bought is found in the
journal by whoever asks the same again, after a kill or in a later run on the same root.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from asclepius_ray.artifacts import Folder
from asclepius_ray.chat.account import Account
from asclepius_ray.chat.buyer import Buyer
from asclepius_ray.chat.desk import Desk
from asclepius_ray.chat.desk_link import DeskLink
from asclepius_ray.chat.desk_messages import Trouble
from asclepius_ray.chat.desk_snapshot import DeskSnapshot
from asclepius_ray.chat.durable_purse import DurablePurse, spent_in
from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.chat.exchange import Completion, Failure, Request
from asclepius_ray.chat.gate import Patience
from asclepius_ray.chat.journal.journal import Journal

JOURNALS_NAME = "journal/evaluation"
UNTOLD_SECONDS = 1.0
"""So long what is on its way is waited for without a word."""
LATE_SECONDS = 5.0
"""Beyond an endpoint's own timeout: an attempt may have been about to be sent."""
BREAK_OFF_SECONDS, CLOSE_SECONDS = 2.0, 8.0
"""What cancelled requests have for their end, and what all of the end has after a cancel."""


@dataclass(frozen=True)
class Seat:
    """An endpoint and the place of its journal, such as "models/trained".

    identity: what the answers depend on beside the requests, such as the weights of a model that is trained
    anew under the same name. account: seats with the same one share its limits; "" = a seat of its own.
    """

    name: str
    endpoint: Endpoint
    identity: str = ""
    account: str = ""

    def journal(self, root: Folder) -> Folder:
        suffix = f"-{self.identity[:16]}" if self.identity else ""
        return root.child(f"{JOURNALS_NAME}/{self.name}{suffix}")


class Asker:
    """Buys the answers of one endpoint."""

    def __init__(self, seat: Seat, desk: Desk, buyer: Buyer) -> None:
        self.seat = seat
        self._desk = desk
        self._buyer = buyer
        self.on_their_way: set[asyncio.Task[Completion | Failure]] = set()

    async def ask(self, request: Request) -> Completion | Failure:
        """The answer, bought now or before; RunTrouble where the endpoint as a whole cannot be used."""
        patience = Patience(self.seat.endpoint.max_retry_seconds)
        asking = asyncio.ensure_future(self._buyer.complete(request, patience))
        self.on_their_way.add(asking)
        asking.add_done_callback(self._came_in)
        # Who breaks the evaluation off does not break off what is paid for.
        return await asyncio.shield(asking)

    async def snapshot(self) -> DeskSnapshot:
        """The figures of the desk at this moment."""
        return await self._desk.snapshot()

    async def stop(self) -> None:
        """Sends nothing more; what is in flight comes in."""
        await self._desk.stop(Trouble("ended", "the evaluation has been broken off"))

    async def break_off(self) -> None:
        """Ends what is still on its way; it may have been charged, and counts so."""
        late = list(self.on_their_way)
        for asking in late:
            asking.cancel()
        if late:
            await asyncio.wait(late, timeout=BREAK_OFF_SECONDS)

    def _came_in(self, asking: "asyncio.Task[Completion | Failure]") -> None:
        self.on_their_way.discard(asking)
        # Its error is told to who asked, if anybody still waits.
        if not asking.cancelled():
            asking.exception()


@asynccontextmanager
async def open_asker(root: Folder, seat: Seat, account: Account) -> AsyncIterator[Asker]:
    """Opens the journal; what was bought is durable at the end, however it comes.

    Failures are asked anew: whoever starts an evaluation again has mended something, or waited.
    """
    # The journal is read from the root, while the other seats are to be heard of.
    desk = await asyncio.to_thread(Desk, seat.journal(root), seat.endpoint, account=account)
    await desk.forget_failures()
    link = DeskLink(desk.exchange, seat.name).start()
    buyer = Buyer(seat.endpoint, link)
    asker = Asker(seat, desk, buyer)
    try:
        yield asker
    finally:
        await to_its_end(_close(asker, buyer, desk))


async def _close(asker: Asker, buyer: Buyer, desk: Desk) -> None:
    try:
        await asker.break_off()
        await buyer.close()
    finally:
        await desk.close()


async def to_its_end(closing: Coroutine[Any, Any, None]) -> None:
    """Waits for it also where this is cancelled, however often: then for `CLOSE_SECONDS` at most.

    Whoever ends an evaluation cancels it a second time, which must not cost what is bought.
    """
    task = asyncio.ensure_future(closing)
    stop: asyncio.CancelledError | None = None
    give_up = math.inf
    while not task.done() and (left := give_up - time.monotonic()) > 0:
        try:
            await asyncio.wait([task], timeout=left if math.isfinite(left) else None)
        except asyncio.CancelledError as cancel:
            give_up = min(give_up, time.monotonic() + CLOSE_SECONDS)
            stop = stop or cancel
    if stop is None:
        return task.result()
    if task.done() and not task.cancelled() and (error := task.exception()) is not None:
        raise stop from error
    raise stop


async def let_in_flight_end(askers: Sequence[Asker], say: Callable[[str], None]) -> None:
    """Sends nothing more, and waits for what is paid already: as long as its endpoint may take to answer.

    Cancelled meanwhile, it waits no longer.
    """
    for asker in askers:
        await asker.stop()
    on_their_way = [asking for asker in askers for asking in asker.on_their_way]
    if not on_their_way:
        return
    _, late = await asyncio.wait(on_their_way, timeout=UNTOLD_SECONDS)
    if late:
        longest = max(asker.seat.endpoint.timeout_seconds for asker in askers if asker.on_their_way)
        say(
            f"evaluate: ends once {len(late)} answers that are on their way have come in, within "
            f"{longest:.0f} s; Ctrl-C ends it at once, and they would have to be paid again"
        )
        await asyncio.wait(late, timeout=longest + LATE_SECONDS)


def open_purse(root: Folder, budget_usd: float) -> DurablePurse | None:
    """The purse of the whole evaluation, with all that the journals of this root hold; None without a budget.

    Those of models and judges that are not asked any more count too: another judge brings no new money.
    """
    if not budget_usd:
        return None
    journals = root.child(JOURNALS_NAME)
    journals.make()
    seats = sorted({name.rpartition("/")[0] for name in journals.names() if "/" in name})
    spent = [spent_in(journals.child(seat), Journal.open(journals.child(seat))) for seat in seats]
    return DurablePurse(
        journals,
        "evaluation.budget_usd",
        budget_usd,
        sum(settled for settled, _ in spent),
        sum(most for _, most in spent),
    )
