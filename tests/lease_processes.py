"""Processes of `lease_process.py`, each one that wants a root, as tests of the lease start them."""

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from asclepius_ray.artifacts import Folder

HEARTBEAT_SECONDS = 1.0
STALE_SECONDS = 6 * HEARTBEAT_SECONDS
HERE = ("", 0.0)
"""The host that a process takes itself for, "" for this one, and the seconds that its clock is ahead."""
SCRIPT = Path(__file__).with_name("lease_process.py")


class Process:
    """One of `lease_process.py`; what it says is taken in as it comes."""

    def __init__(
        self,
        what: str,
        root: Folder,
        seconds: float,
        name: str = "",
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        elsewhere: tuple[str, float] = HERE,
    ) -> None:
        arguments = (what, root.uri, seconds, heartbeat_seconds, name, *elsewhere)
        self.events: list[dict[str, Any]] = []
        self.process = subprocess.Popen(
            [sys.executable, SCRIPT, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.append(json.loads(line))

    def said(self, event: str) -> list[dict[str, Any]]:
        return [found for found in list(self.events) if found["event"] == event]

    def wait_for(self, event: str, count: int = 1, seconds: float = 150) -> None:
        deadline = time.monotonic() + seconds
        while len(self.said(event)) < count:
            is_late_or_ended = time.monotonic() > deadline or self.process.poll() is not None
            assert not is_late_or_ended, (event, self.events, self.last_words())
            time.sleep(0.02)

    def last_words(self) -> str:
        assert self.process.stderr is not None
        self.process.kill()
        return f"exit code {self.process.wait()}: {self.process.stderr.read()}"

    def end(self, seconds: float = 150) -> int:
        code = self.process.wait(timeout=seconds)
        self._reader.join()
        return code

    def pause(self, seconds: float = 60) -> None:
        """Stops it between two writes, until a SIGCONT."""
        self.process.send_signal(signal.SIGUSR2)
        deadline = time.monotonic() + seconds
        while psutil.Process(self.process.pid).status() != psutil.STATUS_STOPPED:
            is_late_or_ended = time.monotonic() > deadline or self.process.poll() is not None
            assert not is_late_or_ended, (self.events, self.last_words())
            time.sleep(0.02)

    def stop(self) -> None:
        self.process.kill()
        self.end()
