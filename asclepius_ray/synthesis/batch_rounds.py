"""Buys through the provider's batch endpoint, round by round, all that the rows still need.

Every round walks all rows as far as the journal carries them; what they need next is bought together.
After the last round the journal answers everything, and the dataset is made as always.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import Any

import pyarrow as pa

from asclepius_ray.artifacts import Folder
from asclepius_ray.chat.batch.chunks import Pending
from asclepius_ray.chat.batch.transport import BatchTransport, Outcome
from asclepius_ray.chat.buyer import entry_of
from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.chat.gate import Load


class DeskAccount:
    """Keeps what the batches bring, and the money for them, at the desk."""

    def __init__(self, desk: Any, endpoint: Endpoint) -> None:
        self._desk = desk
        self._endpoint = endpoint

    async def reserve(self, loads: Sequence[Load]) -> bool:
        allowed: bool = await self._desk.reserve_batch.remote(list(loads))
        return allowed

    async def adopt(self, loads: Sequence[Load]) -> None:
        await self._desk.adopt_batch.remote(list(loads))

    async def settle(self, settled: Sequence[tuple[Load, int, int]]) -> None:
        await self._desk.settle_batch.remote(list(settled))

    async def keep(self, outcomes: Sequence[Outcome]) -> None:
        entries = [
            entry_of(one.pending.key, one.pending.request, one.answer, one.trial, self._endpoint)
            for one in outcomes
        ]
        await self._desk.keep.remote(entries)


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
    run_id = sha256(root.uri.encode()).hexdigest()[:16]
    transport = BatchTransport(endpoint, endpoint.batch, run_id, account, show)
    is_waiting, pending = True, list[Pending]()
    while is_waiting or pending:
        pending, is_waiting = _collect(walk_once())
        # Also with nothing pending: files of an earlier run may still lie at the provider.
        asyncio.run(transport.buy(pending))


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
