"""Real Ray nodes with the dashboard, started and ended as processes of their own; a port that breaks."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

STARTUP_SECONDS = 120.0


@dataclass(frozen=True)
class Head:
    """A cluster that a test has started."""

    address: str
    environment: dict[str, str]
    gcs: str = ""
    """HOST:PORT at which nodes join."""


@dataclass
class Said:
    """What submit_job has said."""

    lines: list[str] = field(default_factory=list)

    def __call__(self, line: str) -> None:
        self.lines.append(line)

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


@contextmanager
def started_head(authentication: dict[str, str], folder: Path, num_workers: int) -> Iterator[Head]:
    # The job's `python` is the first one of the head's PATH.
    environment = os.environ | authentication
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        environment.pop(name, None)
    gcs, dashboard, client = (free_port() for _ in range(3))
    head = ["--head", f"--port={gcs}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"]
    with ExitStack() as nodes:
        # A socket's path has at most 107 characters, and pytest's folders are long.
        head.append(f"--temp-dir={nodes.enter_context(short_link(folder))}")
        nodes.enter_context(started_node(head, environment, folder / "head.log"))
        address = f"http://127.0.0.1:{dashboard}"
        wait_for_port(gcs)
        wait_for_nodes(address, authentication, 1)
        for number in range(num_workers):
            worker = [f"--address=127.0.0.1:{gcs}"]
            nodes.enter_context(started_node(worker, environment, folder / f"worker-{number}.log"))
            # One by one: of two that start at once on one machine, one may never come to be a node.
            wait_for_nodes(address, authentication, 2 + number)
        yield Head(address, environment, f"127.0.0.1:{gcs}")


@contextmanager
def started_node(
    options: list[str], environment: dict[str, str], log: Path
) -> Iterator["subprocess.Popen[bytes]"]:
    """A node of two CPUs, and the process that keeps it up."""
    common = ["--block", "--disable-usage-stats", "--num-cpus=2", "--object-store-memory=100000000"]
    common += ["--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0"]
    with ray_node([*options, *common], environment, log) as process:
        yield process


@contextmanager
def ray_node(
    options: list[str], environment: dict[str, str], log: Path
) -> Iterator["subprocess.Popen[bytes]"]:
    """A node started with these options, and the process that keeps it up."""
    command = [str(Path(sys.executable).parent / "ray"), "start", *options]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield process
    finally:
        # The node is a process group of its own: nothing else of this machine is touched. SIGTERM would
        # drain it first, for up to half a minute.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=30)


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + STARTUP_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


def wait_for_nodes(address: str, authentication: dict[str, str], wanted: int) -> None:
    token = authentication.get("RAY_AUTH_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    deadline = time.monotonic() + STARTUP_SECONDS
    alive = -1
    while time.monotonic() < deadline:
        try:
            answer = httpx.get(f"{address}/api/v0/nodes", headers=headers, timeout=5)
            alive = len(answer.raise_for_status().json()["data"]["result"]["result"])
        except httpx.HTTPError:
            alive = -1
        if alive == wanted:
            return
        time.sleep(0.3)
    raise TimeoutError(f"the cluster has {alive} of {wanted} nodes after {STARTUP_SECONDS} s")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


@contextmanager
def short_link(folder: Path) -> Iterator[Path]:
    link = Path(tempfile.gettempdir()) / f"asclepius-{secrets.token_hex(4)}"
    link.symlink_to(folder)
    try:
        yield link
    finally:
        link.unlink()


@contextmanager
def breaking_port(address: str, break_after: bytes) -> Iterator[str]:
    """A forwarded port that drops the first connection on which it has seen `break_after`."""
    target = httpx.URL(address)
    listener = socket.create_server(("127.0.0.1", 0))
    broken = threading.Event()
    arguments = (listener, (target.host, target.port), break_after, broken)
    threading.Thread(target=_forward, args=arguments, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert broken.is_set()
    finally:
        listener.close()


def _forward(
    listener: socket.socket, target: tuple[str, int], break_after: bytes, broken: threading.Event
) -> None:
    while True:
        try:
            ours, _ = listener.accept()
        except OSError:
            return
        theirs = socket.create_connection(target)
        for source, sink in ((ours, theirs), (theirs, ours)):
            threading.Thread(target=_pump, args=(source, sink, break_after, broken), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket, break_after: bytes, broken: threading.Event) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
            if break_after in data and not broken.is_set():
                broken.set()
                break
    except OSError:
        return
    finally:
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class StallingPort:
    """A forwarded port that holds back, until it is released, whatever begins with `stall_at`."""

    def __init__(self, target: str, stall_at: bytes) -> None:
        self.stalled = threading.Event()
        self._released = threading.Event()
        self._target, self._stall_at = httpx.URL(target), stall_at
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def release(self) -> None:
        self._released.set()

    def close(self) -> None:
        self._released.set()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                ours, _ = self._listener.accept()
                theirs = socket.create_connection((self._target.host, self._target.port))
                for source, sink in ((ours, theirs), (theirs, ours)):
                    threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if data.startswith(self._stall_at) and not self._released.is_set():
                    self.stalled.set()
                    self._released.wait()
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@contextmanager
def stalling_port(target: str, stall_at: bytes) -> Iterator[StallingPort]:
    port = StallingPort(target, stall_at)
    try:
        yield port
        assert port.stalled.is_set(), f"nothing began with {stall_at!r}"
    finally:
        port.close()
