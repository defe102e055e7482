"""Answers out of the journal alone: what is not bought is not sent, but told."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from asclepius_ray.chat.batch.chunks import Pending
from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.chat.exchange import Completion, Entry, Failure, Request, request_key
from asclepius_ray.chat.gate import Patience

GATHER_SECONDS = 0.01


class NotBought(Exception):
    """The row cannot go on: `pending` is what has to be bought first, None where it waits for other rows."""

    def __init__(self, pending: Pending | None) -> None:
        super().__init__(pending)
        self.pending = pending


class Finder:
    """Asks the desk for many keys at a time."""

    def __init__(
        self, endpoint: Endpoint, find: Callable[[Sequence[bytes]], Awaitable[dict[bytes, Entry]]]
    ) -> None:
        self._endpoint = endpoint
        self._find = find
        self._wanted: dict[bytes, asyncio.Future[Entry | None]] = {}
        self._looking: asyncio.Task[None] | None = None

    async def complete(self, request: Request, patience: Patience) -> Completion | Failure:
        """The answer that was bought; raises NotBought."""
        key = request_key(self._endpoint.model, self._endpoint.extra_body, request)
        found = self._wanted.get(key)
        if found is None:
            found = self._wanted[key] = asyncio.get_running_loop().create_future()
            if self._looking is None:
                self._looking = asyncio.get_running_loop().create_task(self._look())
        entry = await asyncio.shield(found)
        if entry is None:
            raise NotBought(Pending.of(key, request))
        return entry.answer

    async def _look(self) -> None:
        await asyncio.sleep(GATHER_SECONDS)
        wanted, self._wanted, self._looking = self._wanted, {}, None
        looking = asyncio.ensure_future(self._find(list(wanted)))
        await asyncio.wait({looking})
        for key, found in wanted.items():
            if (error := looking.exception()) is not None:
                found.set_exception(error)
            else:
                found.set_result(looking.result().get(key))
