"""How far an evaluation is, every other second: metrics, and `evaluation_status.json` in the root."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from asclepius_ray.artifacts import Folder
from asclepius_ray.chat.durable_purse import DurablePurse
from asclepius_ray.errors import AsclepiusError
from asclepius_ray.evaluation.asking import Asker
from asclepius_ray.evaluation.metrics import Metrics, Tally, status_of
from asclepius_ray.evaluation.status import STATUS_NAME

LOOK_SECONDS = 2.0


@asynccontextmanager
async def watching(
    root: Folder, tally: Tally, askers: Mapping[str, Asker], purse: DurablePurse | None = None
) -> AsyncIterator[None]:
    """Shows the tally and the desks of the askers, by the names of their seats, until the context ends.

    purse: that of the whole evaluation, where it has a budget.
    """
    metrics = Metrics(root.run_label)

    async def show() -> None:
        seats = {name: await asker.snapshot() for name, asker in askers.items()}
        common = None if purse is None else purse.figures()
        status = status_of(tally, seats, common, time.time())
        metrics.set(status)
        await _write(root, status)

    async def look() -> None:
        while True:
            await show()
            await asyncio.sleep(LOOK_SECONDS)

    looking = asyncio.ensure_future(look())
    try:
        yield
    finally:
        looking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await looking
        try:
            await show()
        finally:
            metrics.end(askers)


async def _write(root: Folder, status: Mapping[str, Any]) -> None:
    content = (json.dumps(status, indent=1) + "\n").encode()
    # It costs nothing if this fails; the journal's own writing says if the disk is full. A bucket that is
    # away for a moment is a ConfigError of the folder.
    with contextlib.suppress(OSError, AsclepiusError):
        await asyncio.to_thread(root.write_bytes, STATUS_NAME, content)
