"""How far a synthesis is, second by second: the progress line, `status.json` in the root, and metrics.

`status.json` is what `asclepius status ROOT` reads in another terminal. Numbers and reasons only.
"""

import contextlib
import json
import threading
import time
from collections import Counter
from types import TracebackType
from typing import Any

import pyarrow as pa
import ray

from asclepius_ray.artifacts import Folder
from asclepius_ray.chat.desk_snapshot import DeskSnapshot
from asclepius_ray.errors import ConfigError
from asclepius_ray.progress import Progress
from asclepius_ray.synthesis.metrics import Metrics
from asclepius_ray.synthesis.status import STATUS_NAME, describe

LOOK_SECONDS = 1.0
WRITE_SECONDS = 2.0
RATE_WINDOW_SECONDS = 120.0
LOST_STATES = ("rejected", "failed")


class Monitor:
    """Looks at the desk from a thread of its own while the stage works."""

    def __init__(self, root: Folder, desk: Any, progress: Progress, num_rows: int, num_input: int) -> None:
        self._root = root
        self._desk = desk
        self._progress = progress
        self._num_rows = num_rows
        self._num_input = num_input
        self._states: Counter[str] = Counter()
        self._lost: Counter[str] = Counter()
        self._last_row_unix = time.time()
        self._started = time.monotonic()
        self._reason = ""
        self._history: list[tuple[float, int]] = []
        self._metrics = Metrics(root.run_label)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True, name="monitor")

    def __enter__(self) -> "Monitor":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if kind is None or not issubclass(kind, KeyboardInterrupt):
            self._thread.join()
            self._show(is_last=True)
        self._metrics.end()

    def count(self, block: pa.Table) -> None:
        """Takes note of a block of results, in whatever order they come."""
        states = block["state"].to_pylist()
        self._states.update(states)
        reasons = zip(states, block["reason"].to_pylist(), strict=True)
        self._lost.update(reason for state, reason in reasons if state in LOST_STATES)
        self._last_row_unix = time.time()

    def explain(self, reason: str) -> None:
        """Says why nothing moves, such as that batches are awaited; "" ends that."""
        self._reason = reason

    @property
    def num_done(self) -> int:
        return sum(self._states.values())

    def _look(self) -> None:
        written_at = 0.0
        while not self._ended.wait(LOOK_SECONDS):
            is_due = time.monotonic() - written_at >= WRITE_SECONDS
            if self._show(is_last=is_due) and is_due:
                written_at = time.monotonic()

    def _show(self, is_last: bool) -> bool:
        """Shows how far it is, and writes it where `is_last`; False while the desk is away."""
        try:
            snapshot: DeskSnapshot = ray.get(self._desk.snapshot.remote(), timeout=30.0)
        except ray.exceptions.RayError:
            self._progress.update(self.num_done, detail="the desk is being started anew")
            return False
        status = self._status(snapshot)
        self._progress.update(self.num_done, detail=describe(status))
        self._metrics.set(status)
        if is_last:
            # It costs nothing if this fails; the journal's own writing says if the disk is full. A bucket
            # that is away for a moment is a ConfigError of the folder.
            with contextlib.suppress(OSError, ConfigError):
                self._root.write_bytes(STATUS_NAME, (json.dumps(status, indent=1) + "\n").encode())
        return True

    def _status(self, snapshot: DeskSnapshot) -> dict[str, Any]:
        states = dict(self._states)
        return {
            "updated_unix": time.time(),
            "elapsed_seconds": time.monotonic() - self._started,
            "seconds_left": self._seconds_left(),
            "rows": {"input": self._num_input, "readable": self._num_rows, "done": self.num_done}
            | {state: states.get(state, 0) for state in ("ok", "rejected", "failed")},
            "lost": dict(self._lost),
            "last_row_unix": self._last_row_unix,
            "awaits_batches": bool(self._reason),
            "calls": sum(step.attempts for step in snapshot.steps.values()),
            "tokens": snapshot.num_tokens,
            "replayed": snapshot.num_replayed,
            "cost_usd": snapshot.cost_usd,
            "unsettled_usd": snapshot.unsettled_usd,
            "budget_usd": snapshot.budget_usd,
            "refusals": snapshot.num_refusals,
            "requests_per_minute": snapshot.requests_per_minute,
            "tokens_per_minute": snapshot.tokens_per_minute,
            "in_flight": snapshot.num_in_flight,
            "waiting": snapshot.num_waiting,
            "workers": snapshot.num_workers,
            "journal_objects": snapshot.num_segments,
            "damaged_records": snapshot.num_damaged_records,
            "why_waiting": snapshot.why_waiting or self._reason,
        }

    def _seconds_left(self) -> float | None:
        """By the rate of the last two minutes; None where nothing was done in them."""
        now, done = time.monotonic(), self.num_done
        self._history.append((now, done))
        while self._history[0][0] < now - RATE_WINDOW_SECONDS:
            self._history.pop(0)
        then, done_then = self._history[0]
        if done == done_then:
            return None
        return (self._num_rows - done) * (now - then) / (done - done_then)
