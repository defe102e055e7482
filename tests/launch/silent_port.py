"""A forwarded port that goes silent like a head that is taken away: nothing passes, nothing is closed."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx


class SilentPort:
    """Forwards until it is silenced; what is open then says nothing any more, even once it is heard again."""

    def __init__(self, target: str) -> None:
        self._target = httpx.URL(target)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._held: list[socket.socket] = []
        self._silenced = threading.Event()
        self._is_silent = False
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def silence(self) -> None:
        self._is_silent = True
        self._silenced.set()

    def hear(self) -> None:
        self._silenced = threading.Event()
        self._is_silent = False

    def close(self) -> None:
        self._listener.close()
        for held in self._held:
            held.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                ours, _ = self._listener.accept()
                self._held.append(ours)
                if self._is_silent:
                    continue
                theirs = socket.create_connection((self._target.host, self._target.port))
                self._held.append(theirs)
                for source, sink in ((ours, theirs), (theirs, ours)):
                    arguments = (source, sink, self._silenced)
                    threading.Thread(target=self._copy, args=arguments, daemon=True).start()

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket, silenced: threading.Event) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if silenced.is_set():
                    return
                sink.sendall(data)
        if not silenced.is_set():
            with suppress(OSError):
                sink.shutdown(socket.SHUT_WR)


@contextmanager
def silent_port(target: str) -> Iterator[SilentPort]:
    port = SilentPort(target)
    try:
        yield port
    finally:
        port.close()
