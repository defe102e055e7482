"""What a run shows while it works: a live bar in a terminal, else a line at least every 10 seconds."""

import sys
import threading
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

LINE_INTERVAL_SECONDS = 8.0


class Progress:
    """Speaks of one step at a time; lines come from a thread, so that a step that waits is heard of too.

    Carries counts and names of steps only, never a text of the run.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(file=sys.stderr)
        self._lock = threading.Lock()
        self._step = ""
        self._done = 0
        self._total = 0
        self._detail = ""
        self._started = time.monotonic()
        self._ended = threading.Event()
        self._bars: Bars | None = None
        self._thread = threading.Thread(target=self._print_lines, daemon=True, name="progress")

    def __enter__(self) -> "Progress":
        if self.console.is_terminal:
            self._bars = Bars(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[detail]}"),
                TimeElapsedColumn(),
                console=self.console,
            )
            self._bars.start()
        else:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def begin(self, step: str, total: int = 0) -> None:
        """Starts a step; `total` 0 = not known yet."""
        with self._lock:
            self._step, self._done, self._total, self._detail = step, 0, total, ""
            self._started = time.monotonic()
        if self._bars is not None:
            for task in self._bars.task_ids:
                self._bars.update(task, visible=False)
            self._bars.add_task(step, total=total or None, detail="")
        else:
            self._say(step)

    def update(self, done: int, total: int = 0, detail: str = "") -> None:
        """Sets how far the step is."""
        with self._lock:
            self._done, self._detail = done, detail
            self._total = total or self._total
            shown_total = self._total
        if self._bars is not None and self._bars.task_ids:
            task = self._bars.task_ids[-1]
            self._bars.update(task, completed=done, total=shown_total or None, detail=detail)

    def end(self) -> None:
        """Ends the step; until the next one begins, nothing is said by itself."""
        with self._lock:
            self._step = ""

    def say(self, line: str) -> None:
        """Prints one line at once."""
        self._say(line)

    def _say(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _print_lines(self) -> None:
        while not self._ended.wait(LINE_INTERVAL_SECONDS):
            with self._lock:
                seconds = time.monotonic() - self._started
                count = f" {self._done}/{self._total}" if self._total else ""
                detail = f" · {self._detail}" if self._detail else ""
                line = f"{self._step}{count}{detail} · {seconds:.0f} s" if self._step else ""
            if line:
                self._say(line)
