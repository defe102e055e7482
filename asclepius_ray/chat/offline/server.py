"""Runs the offline teacher: beside other work in a thread of its own, or as a process until a signal."""

import asyncio
import signal
import threading
from collections.abc import Callable
from types import TracebackType

from aiohttp import web

from asclepius_ray.chat.offline.batches import OfflineBatches
from asclepius_ray.chat.offline.faults import Faults
from asclepius_ray.chat.offline.service import TeacherService
from asclepius_ray.errors import ConfigError, EndpointError

START_TIMEOUT_SECONDS = 30.0
STOP_TIMEOUT_SECONDS = 10.0
LARGEST_PORT = 65535


class OfflineTeacher:
    """The server in a thread with its own event loop; port 0 takes a free one.

    Use it as a context manager, or call start() and stop(). base_url holds from start() on.
    """

    def __init__(
        self, host: str = "127.0.0.1", port: int = 0, api_key: str = "", faults: Faults | None = None
    ) -> None:
        self.host = host
        self.port = port
        self._service = TeacherService(api_key, faults or Faults())
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._started = threading.Event()
        self._problem: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="offline-teacher", daemon=True)

    def start(self) -> "OfflineTeacher":
        """Returns when the server listens; an EndpointError where it cannot."""
        _check_port(self.port)
        self._thread.start()
        if not self._started.wait(START_TIMEOUT_SECONDS):
            raise EndpointError(f"the offline teacher did not start within {START_TIMEOUT_SECONDS:.0f} s")
        if self._problem is not None:
            raise _cannot_listen(self.host, self.port, self._problem)
        return self

    def stop(self) -> None:
        """Ends the server; requests in flight end with a broken connection."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(STOP_TIMEOUT_SECONDS)

    def top_up(self) -> None:
        """Ends the shortage that the fault `quota_requests` makes: from now on there is quota for all."""
        self._service.has_endless_quota = True

    @property
    def base_url(self) -> str:
        """The address for clients, ending in /v1; on all interfaces it is that of this machine itself."""
        return f"http://{_reachable(self.host)}:{self.port}/v1"

    @property
    def requests_answered(self) -> dict[str, int]:
        """By step: requests that got a completion, whatever is in it."""
        return dict(self._service.answered)

    @property
    def requests_received(self) -> dict[str, int]:
        """By step: all requests with a known prompt, those refused or broken off included."""
        return dict(self._service.received)

    @property
    def most_in_flight(self) -> int:
        """The most requests that were open at the same time."""
        return self._service.most_in_flight

    @property
    def batches(self) -> OfflineBatches:
        """The batch endpoint: its knobs, and what it was asked."""
        return self._service.batches

    @property
    def refusals(self) -> int:
        """Requests that were refused for the rate."""
        return self._service.refusals

    @property
    def accepted_at(self) -> list[float]:
        """Monotonic seconds at which each accepted request came, in order."""
        return list(self._service.accepted_at)

    @property
    def first_answer_at(self) -> float:
        """Monotonic seconds of the first completion; 0 before it."""
        return self._service.first_answer_at

    @property
    def last_answer_at(self) -> float:
        """Monotonic seconds of the last completion so far; 0 before the first."""
        return self._service.last_answer_at

    @property
    def bought_twice(self) -> int:
        """Completions to prompts that had one before."""
        return self._service.bought_twice

    @property
    def answers_by_prompt(self) -> dict[int, int]:
        """By the hash of each prompt: how often it was answered; more than once = bought twice."""
        return dict(self._service.answers_by_prompt)

    @property
    def faults_met(self) -> dict[str, int]:
        """By fault: how often it struck; `outage` and `quota_requests` count the requests that met them."""
        return dict(self._service.faults_met)

    def __enter__(self) -> "OfflineTeacher":
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(
                _serve(self._service, self.host, self.port, self._stopping, self._note)
            )
        except OSError as error:
            self._problem = error
        finally:
            self._loop.close()
            self._started.set()

    def _note(self, port: int) -> None:
        self.port = port
        self._started.set()


def serve_forever(
    host: str, port: int, api_key: str, faults: Faults, announce: Callable[[str], None]
) -> None:
    """Serves until SIGINT or SIGTERM; `announce` is called with the base_url as soon as it listens."""
    _check_port(port)

    async def serve() -> None:
        stopping = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        service = TeacherService(api_key, faults)
        await _serve(
            service, host, port, stopping, lambda bound: announce(f"http://{_reachable(host)}:{bound}/v1")
        )

    try:
        asyncio.run(serve())
    except OSError as error:
        raise _cannot_listen(host, port, error) from None


async def _serve(
    service: TeacherService, host: str, port: int, stopping: asyncio.Event, listening: Callable[[int], None]
) -> None:
    runner = web.AppRunner(
        service.application(), handle_signals=False, access_log=None, handler_cancellation=True,
        shutdown_timeout=0.2,
    )  # fmt: skip
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, backlog=1024)
        await site.start()
        listening(runner.addresses[0][1])
        await stopping.wait()
    finally:
        await runner.cleanup()


def _check_port(port: int) -> None:
    if not 0 <= port <= LARGEST_PORT:
        raise ConfigError(f"port {port} is none: choose one from 1 to {LARGEST_PORT}, or 0 for a free one")


def _reachable(host: str) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    return f"[{host}]" if ":" in host else host


def _cannot_listen(host: str, port: int, error: OSError) -> EndpointError:
    return EndpointError(
        f"the offline teacher cannot listen on {host}:{port} ({error.strerror or type(error).__name__}); "
        "choose another port, or 0 for a free one"
    )
