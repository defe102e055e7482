"""One endpoint of an evaluation, asked through a desk in this process: its journal, its limit, its budget.

An evaluation's calls are HTTP and little else, so one process sends them all; what was bought is found in the
journal by whoever asks the same again, after a kill or in a later run on the same root.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from asclepius_ray.artifacts import Folder
from asclepius_ray.chat.buyer import Buyer
from asclepius_ray.chat.desk import Desk
from asclepius_ray.chat.desk_link import DeskLink
from asclepius_ray.chat.desk_snapshot import DeskSnapshot
from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.chat.exchange import Completion, Failure, Request
from asclepius_ray.chat.gate import Patience

JOURNALS_NAME = "journal/evaluation"
IN_FLIGHT_SECONDS = 5.0


@dataclass(frozen=True)
class Seat:
    """An endpoint and the place of its journal, such as "models/trained".

    identity: what the answers depend on beside the requests, such as the weights of a model that is trained
    anew under the same name.
    """

    name: str
    endpoint: Endpoint
    identity: str = ""

    def journal(self, root: Folder) -> Folder:
        suffix = f"-{self.identity[:16]}" if self.identity else ""
        return root.child(f"{JOURNALS_NAME}/{self.name}{suffix}")


class Asker:
    """Buys the answers of one endpoint."""

    def __init__(self, seat: Seat, buyer: Buyer, desk: Desk) -> None:
        self.seat = seat
        self._desk = desk
        self._buyer = buyer
        self._on_their_way: set[asyncio.Task[Completion | Failure]] = set()

    async def ask(self, request: Request) -> Completion | Failure:
        """The answer, bought now or before; RunTrouble where the endpoint as a whole cannot be used."""
        patience = Patience(self.seat.endpoint.max_retry_seconds)
        asking = asyncio.ensure_future(self._buyer.complete(request, patience))
        self._on_their_way.add(asking)
        asking.add_done_callback(self._came_in)
        # Who breaks the evaluation off does not break off what is paid for.
        return await asyncio.shield(asking)

    async def snapshot(self) -> DeskSnapshot:
        """The figures of the desk at this moment."""
        return await self._desk.snapshot()

    async def let_in_flight_end(self) -> None:
        """Waits for the answers that are on their way, some seconds at most."""
        if self._on_their_way:
            await asyncio.wait(self._on_their_way, timeout=IN_FLIGHT_SECONDS)
        late = list(self._on_their_way)
        for asking in late:
            asking.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    def _came_in(self, asking: "asyncio.Task[Completion | Failure]") -> None:
        self._on_their_way.discard(asking)
        # Its error is told to who asked, if anybody still waits.
        if not asking.cancelled():
            asking.exception()


@asynccontextmanager
async def open_asker(root: Folder, seat: Seat) -> AsyncIterator[Asker]:
    """Opens the journal; what was bought is durable at the end, however it comes.

    Failures are asked anew: whoever starts an evaluation again has mended something, or waited.
    """
    desk = Desk(seat.journal(root), seat.endpoint)
    await desk.forget_failures()
    link = DeskLink(desk.exchange, "evaluation").start()
    buyer = Buyer(seat.endpoint, link)
    asker = Asker(seat, buyer, desk)
    try:
        yield asker
    finally:
        await asker.let_in_flight_end()
        await buyer.close()
        await desk.close()
