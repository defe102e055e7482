"""How far an evaluation is, every other second: metrics, and `evaluation_status.json` in the root."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from asclepius_ray.artifacts import Folder
from asclepius_ray.evaluation.asking import Asker
from asclepius_ray.evaluation.metrics import Metrics, Tally, status_of
from asclepius_ray.evaluation.status import STATUS_NAME

LOOK_SECONDS = 2.0


@asynccontextmanager
async def watching(root: Folder, tally: Tally, askers: Mapping[str, Asker]) -> AsyncIterator[None]:
    """Shows the tally and the desks of the askers, by the names of their seats, until the context ends."""
    metrics = Metrics(root.name)
    looking = asyncio.ensure_future(_look(root, tally, askers, metrics))
    try:
        yield
    finally:
        looking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await looking
        await _show(root, tally, askers, metrics)
        metrics.end(askers)


async def _look(root: Folder, tally: Tally, askers: Mapping[str, Asker], metrics: Metrics) -> None:
    while True:
        await _show(root, tally, askers, metrics)
        await asyncio.sleep(LOOK_SECONDS)


async def _show(root: Folder, tally: Tally, askers: Mapping[str, Asker], metrics: Metrics) -> None:
    seats = {name: await asker.snapshot() for name, asker in askers.items()}
    status = status_of(tally, seats, time.time())
    metrics.set(status)
    content = (json.dumps(status, indent=1) + "\n").encode()
    # It costs nothing if this fails; the journal's own writing says if the disk is full.
    with contextlib.suppress(OSError):
        await asyncio.to_thread(root.write_bytes, STATUS_NAME, content)
