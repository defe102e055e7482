"""The applications that one run has put on Serve: which of them it takes away, and how they end."""

import secrets
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import ray
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.schema import ApplicationStatus

from asclepius_ray.progress import Progress
from asclepius_ray.serving.proxy.environment import DEREGISTRATION_SECONDS
from asclepius_ray.serving.serve_record import forget_records, record_run, recorded_run

POLL_SECONDS = 0.2
END_SECONDS = 30.0
"""What Serve takes to end replicas that have finished, on a busy machine."""


class OpenedApplications:
    """What a run serves: what it put there itself at once, what it put in another's place once that answers.

    Serve keeps the replicas of a version whose successor fails or is broken off. Until the successor
    answers, they are the earlier run's, and stay.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)
        self._run = secrets.token_hex(8)
        self._answers = False
        self.found = self._names & {
            name
            for name, found in serve.status().applications.items()
            if found.status != ApplicationStatus.DELETING
        }
        for name in self._names - self.found:
            record_run(name, self._run)

    def take_over(self) -> None:
        """All of them answer as this run deployed them: whoever served them before leaves them alone."""
        for name in self._names:
            record_run(name, self._run)
        self._answers = True

    def close(self, drain_seconds: float, progress: Progress) -> bool:
        """Takes away what is this run's, and Serve with it if nobody else is on it: then True.

        Serve's end cuts every stream, as its proxies are killed: so long as `drain_seconds` it waits for
        the replicas to finish theirs. A second Ctrl-C or SIGTERM ends the waiting; 0 = without waiting.
        """
        if _get_global_client(raise_if_no_controller_running=False) is None:
            return True  # `serve shutdown` was first.
        if self.found and not self._answers:
            progress.say(
                f"{', '.join(sorted(self.found))}: what was served before stays, until Serve has replaced it "
                "or it is deployed again"
            )
        ours = {name for name in self._names if recorded_run(name) == self._run}
        # serve.delete waits for their end, or for nothing: it must be known that their end has begun.
        ray.get(_get_global_client()._controller.delete_apps.remote(sorted(ours)))
        if drain_seconds and _still_end(ours):
            progress.say(
                f"no new requests; answers under way have {drain_seconds:.0f} s to end (a second Ctrl-C or "
                "SIGTERM cuts them)"
            )
            _wait_for_the_end(ours, drain_seconds + DEREGISTRATION_SECONDS + END_SECONDS)
        # Only now: somebody may have come while the last streams ended.
        if not set(serve.status().applications) - _still_end(ours):
            forget_records()
            serve.shutdown()
            return True
        while _still_end(ours):
            time.sleep(POLL_SECONDS)
        return False


def _still_end(applications: set[str]) -> set[str]:
    """Those of them that are about to go; one that somebody deploys meanwhile is none of them."""
    return {
        name
        for name, found in serve.status().applications.items()
        if name in applications and found.status == ApplicationStatus.DELETING
    }


def _wait_for_the_end(applications: set[str], seconds: float) -> None:
    give_up = time.monotonic() + seconds
    with _signals_interrupt():
        try:
            while _still_end(applications) and time.monotonic() < give_up:
                time.sleep(POLL_SECONDS)
        except KeyboardInterrupt:
            return  # What follows is what the second signal asks for.


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt as Ctrl-C does, the second time too; threads get no signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)
