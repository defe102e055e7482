"""Jobs on a head whose nodes come and go: what each said and when, beside the counts of that time."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from autoscaled_heads import NodeType, Timeline
from local_heads import Head
from submitted_jobs import submit

IDLE_SECONDS = 12.0
TYPES = {
    "plain": NodeType({"CPU": 1}, most=2, idle_seconds=IDLE_SECONDS),
    "expensive": NodeType({"CPU": 8, "GPU": 1}, most=1, idle_seconds=IDLE_SECONDS),
}
GOING_SECONDS = IDLE_SECONDS + 15.0
"""By when an idle node has gone: the autoscaler looks every second, and Ray drains it first."""


@dataclass
class Job:
    """A submitted job, with what it said and when."""

    process: subprocess.Popen[str]
    timeline: Timeline
    begun: float
    ended: float = 0.0
    lines: list[tuple[float, str]] = field(default_factory=list)

    @classmethod
    def submitted(cls, head: Head, timeline: Timeline, name: str, root: str, *settings: str) -> "Job":
        return cls(submit(head, name, root, *settings), timeline, timeline.now())

    def follow(self, seconds: float, heard: Callable[[str], None] = lambda line: None) -> None:
        """Hears it until it ends, for so long at most."""
        watchdog = threading.Timer(seconds, self.process.kill)
        watchdog.start()
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append((self.timeline.now(), line.rstrip()))
            heard(line)
        self.process.wait()
        watchdog.cancel()
        self.ended = self.timeline.now()

    def wait_for(self, text: str, seconds: float, since: float = 0.0) -> None:
        """Until it says that; for another thread than the one that follows."""

        def is_said() -> bool:
            return any(moment >= since and text in line for moment, line in list(self.lines))

        wait_until(lambda: is_said() or bool(self.ended), seconds, f"it did not say {text!r}")
        assert is_said(), f"it ended without {text!r}"

    def at(self, text: str) -> float:
        """When it said that."""
        return next(moment for moment, line in self.lines if text in line)

    @property
    def text(self) -> str:
        return "\n".join(line for _, line in list(self.lines))


def wait_until(is_so: Callable[[], bool], seconds: float, otherwise: str) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.3)


def until_alone(timeline: Timeline) -> None:
    """Until no node is left beside the head, or should long have gone."""
    deadline = time.monotonic() + GOING_SECONDS + 20
    while any(timeline.moments[-1][1].values()) and time.monotonic() < deadline:
        time.sleep(0.3)


def plain(counts: list[dict[str, int]]) -> list[int]:
    return [found["plain"] for found in counts]


def tell(
    timeline: Timeline, marks: tuple[str, ...], *jobs: Job, acts: Sequence[tuple[float, str]] = ()
) -> None:
    """Prints the changes of the counts, the jobs' lines that hold a mark, and what the drill did."""
    said = [each for job in jobs for each in job.lines if any(mark in each[1] for mark in marks)]
    counts = [(moment, f"there are {found}") for moment, found in timeline.moments]
    ends = [(job.ended, "job ended") for job in jobs] + [(job.begun, "job submitted") for job in jobs]
    for moment, line in sorted([*said, *counts, *ends, *acts]):
        sys.stdout.write(f"{moment:6.1f} s  {line}\n")
