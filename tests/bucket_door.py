"""A port before a local bucket: requests take their time there, or none gets through."""

import random
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Door:
    """Forwards to a bucket's server; `shut` drops every connection, as an outage does."""

    def __init__(self, uri: str, latency_seconds: float) -> None:
        found = re.search(r"endpoint_override=([\d.]+):(\d+)", uri)
        assert found is not None
        self._target = (found[1], int(found[2]))
        self._latency = latency_seconds
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.is_shut = False
        self.uri = uri.replace(found[0], f"endpoint_override=127.0.0.1:{self._listener.getsockname()[1]}")
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.is_shut = True
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                ours, _ = self._listener.accept()
                if self.is_shut:
                    ours.close()
                    continue
                try:
                    theirs = socket.create_connection(self._target)
                except OSError:
                    # The bucket's trouble with one connection is not the door's with the next.
                    ours.close()
                    continue
                for source, sink, wait in ((ours, theirs, self._latency), (theirs, ours, 0.0)):
                    threading.Thread(target=self._copy, args=(source, sink, wait), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket, wait: float) -> None:
        with suppress(OSError):
            while (data := source.recv(65536)) and not self.is_shut:
                time.sleep(random.uniform(0, wait))
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@contextmanager
def door_to(uri: str, latency_seconds: float = 0.0) -> Iterator[Door]:
    door = Door(uri, latency_seconds)
    try:
        yield door
    finally:
        door.close()
