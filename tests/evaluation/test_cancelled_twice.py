"""Whoever ends an evaluation cancels it a second time; what was bought is durable all the same."""

import asyncio
from contextlib import suppress
from pathlib import Path

from chat_server import serving_chat

from asclepius_ray.artifacts import Folder
from asclepius_ray.chat.account import Account
from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.chat.exchange import Request
from asclepius_ray.chat.journal.journal import Journal
from asclepius_ray.evaluation.asking import Seat, open_asker
from asclepius_ray.records import Message

QUESTION = Request("answer", (Message("user", "How is she?"),), 0.0, 8)


async def ask_and_be_cancelled(root: Folder, seat: Seat, cancels: int) -> None:
    answered = asyncio.Event()

    async def ask() -> None:
        async with open_asker(root, seat, Account.of(seat.endpoint)) as asker:
            await asker.ask(QUESTION)
            answered.set()
            await asyncio.sleep(60)

    task = asyncio.ensure_future(ask())
    await answered.wait()
    for _ in range(cancels):
        task.cancel()
        # On to the next point at which it can be cancelled.
        await asyncio.sleep(0.01)
    with suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()


def test_an_answer_is_durable_however_often_its_buyer_is_cancelled(tmp_path: Path) -> None:
    with serving_chat(lambda _body: "She is well.") as url:
        for cancels in (1, 2, 3):
            root = Folder(str(tmp_path / str(cancels)))
            seat = Seat("models/one", Endpoint(url, "one"))
            asyncio.run(ask_and_be_cancelled(root, seat, cancels))
            assert len(Journal.open(seat.journal(root))) == 1, cancels
