"""Keeps the desk's journal durable while answers come in: flushes twice a second, merges beside it."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

from asclepius_ray.artifacts import Folder
from asclepius_ray.chat.journal.journal import Journal

FLUSH_SECONDS = 0.5
PATIENCE_SECONDS = 15.0


class DeskStorage:
    """Owns the journal; its tasks run on the loop of whoever calls `start`."""

    def __init__(self, folder: Folder) -> None:
        self.journal = Journal.open(folder)
        self._flushing = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._is_closed = False

    def start(
        self, failed: Callable[[OSError], Awaitable[None]], flushed: Callable[[], Awaitable[None]]
    ) -> None:
        """`flushed` is awaited after every flush; `failed` once writing has failed for too long."""
        self._tasks = [
            asyncio.create_task(self._keep_flushing(failed, flushed)),
            asyncio.create_task(self._keep_merging()),
        ]

    async def flush(self) -> None:
        """Makes all appended entries durable; an OSError where that fails, and nothing is lost."""
        async with self._flushing:
            await asyncio.to_thread(self.journal.flush)

    async def close(self) -> None:
        self._is_closed = True
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self.flush()

    async def _keep_flushing(
        self, failed: Callable[[OSError], Awaitable[None]], flushed: Callable[[], Awaitable[None]]
    ) -> None:
        well_at = time.monotonic()
        while not self._is_closed:
            await asyncio.sleep(FLUSH_SECONDS)
            try:
                await self.flush()
                await flushed()
                well_at = time.monotonic()
            except OSError as error:
                if time.monotonic() - well_at > PATIENCE_SECONDS:
                    await failed(error)

    async def _keep_merging(self) -> None:
        """A merge that cannot be written now is tried again: it only saves objects."""
        while not self._is_closed:
            await asyncio.sleep(4 * FLUSH_SECONDS)
            with contextlib.suppress(OSError):
                await asyncio.to_thread(self.journal.merge)
