"""The offline teacher in a process of its own, as a provider is, and what share of its limit was used."""

import contextlib
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import httpx

COUNTERS_TIMEOUT_SECONDS = 120.0


@dataclass(frozen=True)
class Served:
    """What the teacher has counted; moments are monotonic seconds, the same for all processes."""

    accepted_at: list[float]
    last_answer_at: float
    num_refusals: int
    most_in_flight: int

    @property
    def first_call_at(self) -> float:
        return self.accepted_at[0]

    @property
    def num_accepted(self) -> int:
        return len(self.accepted_at)

    @property
    def seconds(self) -> float:
        """From the first call to the last answer."""
        return self.last_answer_at - self.first_call_at

    @property
    def calls_per_second(self) -> float:
        return self.num_accepted / self.seconds

    @property
    def refused_share(self) -> float:
        return self.num_refusals / self.num_accepted

    def steady_share(self, per_minute: int) -> float:
        """Accepted calls between their 5th and 95th percentile, as a share of what the limit allows."""
        cuts = statistics.quantiles(self.accepted_at, n=20)
        inside = sum(cuts[0] <= moment <= cuts[-1] for moment in self.accepted_at)
        return inside / (cuts[-1] - cuts[0]) * 60 / per_minute

    def whole_share(self, per_minute: int) -> float:
        """All accepted calls from the first call to the last answer, as a share of what the limit allows."""
        return self.calls_per_second * 60 / per_minute


@dataclass(frozen=True)
class TeacherProcess:
    base_url: str
    process: "subprocess.Popen[str]"

    def served(self) -> Served:
        address = f"{self.base_url.removesuffix('/v1')}/offline/counters"
        # The one client of this process: no proxy may stand between two processes of one machine.
        counters = httpx.get(address, timeout=COUNTERS_TIMEOUT_SECONDS, trust_env=False).json()
        return Served(
            counters["accepted_at"],
            counters["last_answer_at"],
            counters["refusals"],
            counters["most_in_flight"],
        )


@contextlib.contextmanager
def teacher_process(port: int = 0, **faults: float) -> Iterator[TeacherProcess]:
    command = [sys.executable, "-m", "asclepius_ray.cli", "teacher", "--port", str(port)]
    for name, value in faults.items():
        command += ["--fault", f"{name}={value:g}"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"COLUMNS": "200"}
    )
    assert process.stdout is not None
    try:
        base_url = process.stdout.readline().strip()
        if not base_url:
            raise RuntimeError("the offline teacher did not start; it has said why on stderr")
        yield TeacherProcess(base_url, process)
    finally:
        process.terminate()
        process.wait(timeout=30)
