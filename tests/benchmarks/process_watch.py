"""CPU time and memory of a process and all that it starts, seen from outside, by what each of them is."""

import threading
from collections import defaultdict
from dataclasses import dataclass, field
from time import monotonic
from types import TracebackType

import numpy as np
import psutil

LOOK_SECONDS = 0.2
SEARCH_SECONDS = 1.0
DAEMON = "ray daemon"


@dataclass
class Life:
    """One process, look by look."""

    pid: int
    role: str
    moments: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    private_mib: list[float] = field(default_factory=list)
    """Resident memory that no other process shares: without Ray's object store."""

    def cpu_between(self, begin: float, end: float) -> float:
        if not self.moments:
            return 0.0
        at_begin, at_end = np.interp([begin, end], self.moments, self.cpu_seconds, left=0.0)
        return float(at_end - at_begin)

    def mean_mib(self, begin: float, end: float) -> float | None:
        """None where it was not alive then."""
        inside = [
            size for moment, size in zip(self.moments, self.private_mib, strict=True) if begin <= moment < end
        ]
        return float(np.mean(inside)) if inside else None


class ProcessWatch:
    """Looks at the tree of a process five times a second until it is left."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._lives: dict[int, Life] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    @property
    def lives(self) -> list[Life]:
        return list(self._lives.values())

    def cpu_by_role(self, begin: float, end: float) -> dict[str, float]:
        """Role → CPU seconds between two moments."""
        seconds: dict[str, float] = defaultdict(float)
        for life in self.lives:
            seconds[life.role] += life.cpu_between(begin, end)
        return dict(seconds)

    def __enter__(self) -> "ProcessWatch":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        processes: dict[int, psutil.Process] = {}
        searched_at = float("-inf")
        while not self._ended.wait(LOOK_SECONDS):
            if monotonic() - searched_at >= SEARCH_SECONDS:
                processes = self._search()
                searched_at = monotonic()
            for pid, process in list(processes.items()):
                if not self._note(self._lives[pid], process):
                    del processes[pid]

    def _search(self) -> dict[int, psutil.Process]:
        found = {}
        try:
            tree = [self._root, *self._root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return {}
        for process in tree:
            try:
                role = "driver" if process == self._root else _role_of(process)
            except psutil.Error:
                continue
            life = self._lives.setdefault(process.pid, Life(process.pid, role))
            if life.role == DAEMON:
                # A process of Ray waits without a name until it becomes a worker.
                life.role = role
            found[process.pid] = process
        return found

    def _note(self, life: Life, process: psutil.Process) -> bool:
        try:
            with process.oneshot():
                times, memory = process.cpu_times(), process.memory_info()
        except psutil.Error:
            return False
        life.moments.append(monotonic())
        life.cpu_seconds.append(times.user + times.system)
        life.private_mib.append((memory.rss - memory.shared) / 2**20)
        return True


def _role_of(process: psutil.Process) -> str:
    title = " ".join(process.cmdline()[:1])
    if "Desk" in title:
        return "desk"
    if "MapWorker" in title or "RowWalker" in title:
        return "worker"
    return DAEMON
