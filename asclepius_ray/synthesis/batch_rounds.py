"""Buys through the provider's batch endpoint, round by round, all that the rows still need.

Every round walks all rows as far as the journal carries them; what they need next is bought together.
After the last round the journal answers everything, and the dataset is made as always.
"""

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from asclepius_ray.artifacts import Folder
from asclepius_ray.chat.batch.chunks import Pending
from asclepius_ray.chat.batch.transport import BatchTransport, Outcome
from asclepius_ray.chat.buyer import entry_of
from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.chat.gate import Load, Settled
from asclepius_ray.synthesis.desk_actor import ask_desk

RUN_ID_NAME = "batch_run_id"


class DeskAccount:
    """Keeps what the batches bring, and the money for them, at the desk.

    A desk that was lost costs a pause: the one in its place is told which requests are open.
    """

    def __init__(self, desk: Any, endpoint: Endpoint) -> None:
        self._desk = desk
        self._endpoint = endpoint
        self._life = ""
        """Of the desk that knows what is open."""
        self._open: Counter[Load] = Counter()

    async def reserve(self, loads: Sequence[Load]) -> bool:
        allowed = await self._tell("reserve_batch", list(loads))
        if allowed:
            self._open.update(loads)
        return allowed

    async def adopt(self, loads: Sequence[Load]) -> None:
        self._open.update(loads)
        # Nothing else is open yet: the desk is told of all at once, with the first word of money.
        self._life = ""

    async def settle(self, settled: Sequence[Settled]) -> None:
        await self._tell("settle_batch", list(settled))
        self._open.subtract(load for load, _tokens in settled)

    async def keep(self, outcomes: Sequence[Outcome]) -> None:
        entries = [
            entry_of(one.pending.key, one.pending.request, one.answer, one.trial, self._endpoint)
            for one in outcomes
        ]
        await ask_desk(lambda: self._desk.keep.remote(entries))

    async def _tell(self, method: str, content: Sequence[Any]) -> bool:
        """Speaks of money to the desk that knows what is open; its reply."""
        while True:
            ask = getattr(self._desk, method)
            said = await ask_desk(partial(ask.remote, self._life, content))
            if said is not None:
                return bool(said)
            adopt = partial(self._desk.adopt_batches.remote, list(self._open.elements()))
            self._life = await ask_desk(adopt)


def buy_in_batches(
    walk_once: Callable[[], Iterable[pa.Table]],
    root: Folder,
    account: DeskAccount,
    endpoint: Endpoint,
    show: Callable[[str], None],
) -> None:
    """Returns when no row needs anything that is not in the journal.

    `walk_once` yields all blocks of one walk; a row that cannot go on has the state "pending".
    """
    transport = BatchTransport(endpoint, endpoint.batch, _run_id(root), account, show)
    is_waiting, pending = True, list[Pending]()
    while is_waiting or pending:
        pending, is_waiting = _collect(walk_once())
        # Also with nothing pending: files of an earlier run may still lie at the provider.
        asyncio.run(transport.buy(pending))


def _run_id(root: Folder) -> str:
    """What tells this run's batches from all others of the account, for as long as there is its root.

    Drawn, and not made of the root's path: the same path may lie on two machines.
    """
    if not root.exists(RUN_ID_NAME):
        root.write_bytes(RUN_ID_NAME, secrets.token_hex(8).encode())
    return root.read_bytes(RUN_ID_NAME).decode()


def _collect(blocks: Iterable[pa.Table]) -> tuple[list[Pending], bool]:
    """What has to be bought, each once, and whether a row waits for other rows."""
    pending: dict[bytes, Pending] = {}
    is_waiting = False
    for block in blocks:
        columns = (block[name].to_pylist() for name in ("state", "pending_key", "pending_request"))
        for state, key, packed in zip(*columns, strict=True):
            if state != "pending":
                continue
            if key is None:
                is_waiting = True
            else:
                pending[key] = Pending(key, packed)
    return list(pending.values()), is_waiting
