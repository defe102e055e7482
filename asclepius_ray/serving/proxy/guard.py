"""The guard: between HAProxy's open side and its routing, for the answers that stream.

python -m asclepius_ray.serving.proxy.guard FOLDER PARENT

HAProxy hands every POST to the guard's socket; the guard opens HAProxy's inner socket, copies the request
there and the answer back (`EventRelay`). It knows no route, no key and no replica, and keeps nothing. While
it is away HAProxy goes straight on, so that it can fail without an outage; it ends with the process PARENT.
"""

import asyncio
import contextlib
import fcntl
import os
import sys
from pathlib import Path
from typing import cast

import uvloop

from asclepius_ray.serving.proxy.event_relay import EventRelay
from asclepius_ray.serving.proxy.rewriting import GUARD_SOCKET, INNER_SOCKET

PARENT_CHECK_SECONDS = 1.0
CONNECTIONS_IN_WAIT = 1024


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


async def guard(folder: Path, parent: int) -> None:
    """Listens until the process `parent` is gone."""
    path = folder / GUARD_SOCKET
    path.unlink(missing_ok=True)
    earlier = os.umask(0o177)
    try:
        server = await asyncio.get_running_loop().create_unix_server(
            lambda: _Client(str(folder / INNER_SOCKET)), str(path), backlog=CONNECTIONS_IN_WAIT
        )
    finally:
        os.umask(earlier)
    async with server:
        while _is_alive(parent):
            await asyncio.sleep(PARENT_CHECK_SECONDS)


def _is_alive(process_id: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process_id, 0)
        return True
    return False


def main() -> None:
    folder, parent = Path(sys.argv[1]), int(sys.argv[2])
    with (folder / "guard.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # Another one stands guard already.
        uvloop.run(guard(folder, parent))


if __name__ == "__main__":
    main()
