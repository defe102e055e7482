"""One endpoint of an evaluation, asked through a desk in this process: its journal, its limit, its budget.

An evaluation's calls are HTTP and little else, so one process sends them all; what was bought is found in the
journal by whoever asks the same again, after a kill or in a later run on the same root.
"""

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

    def __init__(self, seat: Seat, desk: Desk, buyer: Buyer) -> None:
        self.seat = seat
        self._desk = desk
        self._buyer = buyer

    async def ask(self, request: Request) -> Completion | Failure:
        """The answer, bought now or before; RunTrouble where the endpoint as a whole cannot be used."""
        return await self._buyer.complete(request, Patience(self.seat.endpoint.max_retry_seconds))

    async def snapshot(self) -> DeskSnapshot:
        return await self._desk.snapshot()


@asynccontextmanager
async def open_asker(root: Folder, seat: Seat) -> AsyncIterator[Asker]:
    """Opens the journal; what was bought is durable at the end, however it comes.

    Failures are asked anew: whoever starts an evaluation again has mended something, or waited.
    """
    desk = Desk(seat.journal(root), seat.endpoint)
    await desk.forget_failures()
    link = DeskLink(desk.exchange, "evaluation").start()
    buyer = Buyer(seat.endpoint, link)
    try:
        yield Asker(seat, desk, buyer)
    finally:
        await buyer.close()
        await desk.close()
