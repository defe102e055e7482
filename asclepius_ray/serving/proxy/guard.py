"""The guard: between HAProxy's open side and its routing, for the answers that stream.

python -m asclepius_ray.serving.proxy.guard FOLDER PARENT

HAProxy hands every POST to the guard's socket; the guard opens HAProxy's inner socket, copies the request
there and the answer back (`EventRelay`). It knows no route, no key and no replica, and keeps nothing. While
it is away HAProxy goes straight on: no outage, but nobody announces a cut stream,
so a keeper starts it anew and says so in the folder's guard.log. Both end with the process PARENT, and
the keeper sees to it that the HAProxys of that process end too.
"""

import asyncio
import contextlib
import fcntl
import logging
import multiprocessing
import os
import sys
import time
from pathlib import Path
from typing import Any, TextIO, cast

import uvloop

from asclepius_ray.serving.proxy.event_relay import EventRelay
from asclepius_ray.serving.proxy.release import release_proxies
from asclepius_ray.serving.proxy.rewriting import GUARD_SOCKET, INNER_SOCKET

PARENT_CHECK_SECONDS = 1.0
POST_CHECK_SECONDS = 0.1
CONNECTIONS_IN_WAIT = 1024
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 60.0
LOCK = "guard.lock"
_logger = logging.getLogger(__name__)


class _Side(asyncio.Protocol):
    """One of the two connections of a request; reads no faster than the other side sends."""

    transport: asyncio.Transport
    other: "_Side | None" = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's own kind, which does not descend from asyncio's.
        self.transport = cast(asyncio.Transport, transport)

    def pause_writing(self) -> None:
        if self.other is not None and not self.other.transport.is_closing():
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and not self.other.transport.is_closing():
            self.other.transport.resume_reading()


class _Client(_Side):
    """HAProxy's open side; once it is gone, the request behind it is given up at once."""

    def __init__(self, inner_socket: str) -> None:
        self._inner_socket = inner_socket
        self._waiting: list[bytes] = []
        self._opening: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._opening = asyncio.get_running_loop().create_task(self._open())

    async def _open(self) -> None:
        try:
            _, replica = await asyncio.get_running_loop().create_unix_connection(
                lambda: _Replica(self), self._inner_socket
            )
        except OSError:
            self.transport.abort()
            return
        if self.transport.is_closing():
            replica.transport.abort()
            return
        self.other = replica
        for data in self._waiting:
            replica.transport.write(data)
        self._waiting.clear()

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self._waiting.append(data)
        else:
            self.other.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None:
            self.other.transport.abort()


class _Replica(_Side):
    """HAProxy's inner side, behind which one replica answers."""

    def __init__(self, client: _Client) -> None:
        self.other = client
        self._client = client
        self._relay = EventRelay()

    def data_received(self, data: bytes) -> None:
        if out := self._relay.feed(data):
            self._client.transport.write(out)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._client.transport.is_closing():
            self._client.transport.write(self._relay.finish())
            self._client.transport.close()


async def guard(folder: Path, parent: int, lock: TextIO) -> None:
    """Listens until the process `parent` is gone, then leaves its post and lets open streams end."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_say_what_failed)
    path = folder / GUARD_SOCKET
    path.unlink(missing_ok=True)
    earlier = os.umask(0o177)
    try:
        server = await loop.create_unix_server(
            lambda: _Client(str(folder / INNER_SOCKET)), str(path), backlog=CONNECTIONS_IN_WAIT
        )
    finally:
        os.umask(earlier)
    async with server:
        while _is_alive(parent):
            await asyncio.sleep(PARENT_CHECK_SECONDS)
        server.close()
        fcntl.flock(lock, fcntl.LOCK_UN)


def _say_what_failed(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # Never the error's own text: it may hold what it failed on, a piece of an answer.
    _logger.error("%s (%s)", context["message"], type(context.get("exception")).__name__)


def _is_alive(process_id: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process_id, 0)
        return True
    return False


def _take_post(lock: TextIO, parent: int) -> bool:
    """Waits for the guard of an earlier proxy to go; False where this proxy has one, or is gone itself."""
    while _is_alive(parent):
        lock.seek(0)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if lock.read() == str(parent):
                return False
            time.sleep(POST_CHECK_SECONDS)
        else:
            lock.truncate()
            lock.write(str(parent))
            lock.flush()
            return True
    return False


def _keep(folder: Path, parent: int, lock: TextIO) -> None:
    """Has a guard stand until the process `parent` is gone, whatever becomes of each of them; then frees the
    port of its HAProxys."""
    pause_seconds = FIRST_PAUSE_SECONDS
    while True:
        standing = multiprocessing.get_context("fork").Process(target=_stand, args=(folder, parent, lock))
        standing.start()
        while standing.is_alive() and _is_alive(parent):
            standing.join(PARENT_CHECK_SECONDS)
        if not _is_alive(parent):
            release_proxies(folder, parent)
            standing.join()
            return
        _logger.error(
            "the guard ended with exit code %s; until it is back, in %s s, a replica that dies cuts its "
            "streams without an error event",
            standing.exitcode,
            pause_seconds,
        )
        time.sleep(pause_seconds)
        pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)


def _stand(folder: Path, parent: int, lock: TextIO) -> None:
    uvloop.run(guard(folder, parent, lock))


def main() -> None:
    logging.basicConfig(format="%(asctime)s %(message)s")
    folder, parent = Path(sys.argv[1]), int(sys.argv[2])
    with (folder / LOCK).open("a+") as lock:
        if _take_post(lock, parent):
            _keep(folder, parent, lock)


if __name__ == "__main__":
    main()
