"""What is written down of each request: one line of ids, counts and times at its end, and never a text.

It goes to the replica's log file and, where `serving.audit` names a folder, to a file of each day there.
"""

import contextvars
import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from asclepius_ray.serving.access.account import Account

# A child of Ray Serve's logger: its lines go to the replica's log file, and not to the console.
_log = logging.getLogger("ray.serve.asclepius.audit")
# Its lines are kept however quiet Ray Serve itself is told to be.
_log.setLevel(logging.INFO)
NO_ROUTE = "(none)"


def audit_line(account: Account, status: int, now: datetime, seconds: float) -> str:
    """One JSON object without a line break."""
    line = {
        "time": now.isoformat(timespec="milliseconds"),
        "request": account.request_id,
        "key": account.caller.key_id,
        "route": account.route or NO_ROUTE,
        "model": account.model,
        "status": status,
        "prompt_tokens": account.prompt_tokens,
        "completion_tokens": account.completion_tokens,
        "queue_ms": _milliseconds(account.queue_seconds),
        "first_token_ms": _milliseconds(account.first_token_seconds),
        "total_ms": _milliseconds(seconds),
        "outcome": account.outcome,
    }
    return json.dumps(line)


@dataclass
class AuditLog:
    """Writes the lines of one replica."""

    folder: Path | None = None
    replica_id: str = "replica"
    on_loss: Callable[[], None] = lambda: None
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    _day: str = field(default="", init=False)
    _descriptor: int = field(default=-1, init=False)
    _is_losing: bool = field(default=False, init=False)

    def write(self, account: Account, status: int) -> None:
        """Writes the line of a request that has ended. A folder that takes nothing ends no request: that
        is said once in the log, which has the line, and counted.
        """
        now = self.clock()
        line = audit_line(account, status, now, time.monotonic() - account.started)
        # Ray Serve's log puts X-Request-Id, as it was sent, before what is logged in a request's context.
        contextvars.Context().run(_log.info, "answered %s", line, extra={"log_to_stderr": False})
        if self.folder is None:
            return
        try:
            os.write(self._file_of(f"{now:%Y-%m-%d}", self.folder), f"{line}\n".encode())
            self._is_losing = False
        except OSError as error:
            self.on_loss()
            if not self._is_losing:
                contextvars.Context().run(
                    _log.error, "serving.audit: %s takes no lines (%s)", self.folder, error.strerror
                )
            self._is_losing = True

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor, self._day = -1, ""

    def _file_of(self, day: str, folder: Path) -> int:
        if day != self._day:
            self.close()
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = folder / f"audit-{day}-{self.replica_id}.jsonl"
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            self._day = day
        return self._descriptor


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)
