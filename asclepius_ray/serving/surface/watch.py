"""Work for a client, as long as the client is there and its deadline has not passed."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from starlette.types import Receive

LOOK_SECONDS = 15.0
"""How often a client that reads nothing is looked for."""

Result = TypeVar("Result")


class ClientGoneError(Exception):
    """Nobody waits for the answer any more."""


class DeadlinePassedError(Exception):
    """The client's deadline is over."""


async def work_for_client(
    work: Coroutine[Any, Any, Result],
    receive: Receive,
    seconds_left: float | None,
    is_stalled: Callable[[], bool] | None = None,
) -> Result:
    """The work's result; it is cancelled as soon as its client is gone or stalled, or its time is over.

    Raises ClientGoneError or DeadlinePassedError then. The body of the request has been read already.
    """
    task = asyncio.create_task(work)
    gone = asyncio.create_task(_wait_until_gone(receive, is_stalled))
    try:
        timeout = None if seconds_left is None else max(seconds_left, 0.0)
        await asyncio.wait({task, gone}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGoneError if gone.done() else DeadlinePassedError
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _wait_until_gone(receive: Receive, is_stalled: Callable[[], bool] | None) -> None:
    left = asyncio.create_task(_wait_until_left(receive))
    try:
        while not (await asyncio.wait({left}, timeout=LOOK_SECONDS))[0]:
            if is_stalled is not None and is_stalled():
                return
    finally:
        left.cancel()


async def _wait_until_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
