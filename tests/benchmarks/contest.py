"""Runs one contender as a process of its own against a teacher, and says how it did."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from process_watch import DAEMON, Life, ProcessWatch
from teacher_process import Served, TeacherProcess

CONTENDERS = Path(__file__).resolve().parent / "contenders"
LEFT_OUT = ("http_proxy", "https_proxy", "all_proxy", "RAY_ADDRESS")


@dataclass(frozen=True)
class Result:
    """How one contender did, as the teacher, the contender and a look from outside have it."""

    served: Served
    said: dict[str, Any]
    """The contender's own last word: `begin`, `end`, `num_lost` and what else it tells."""
    start_seconds: float
    """From its start until it was ready to begin: imports, and Ray's start where it has one."""
    cpu_seconds: dict[str, float]
    """Role → CPU time from the first call to the last answer."""
    lives: list[Life]

    @property
    def num_lost(self) -> int:
        lost: int = self.said["num_lost"]
        return lost

    @property
    def seconds(self) -> float:
        """From its beginning to its end, its start left out."""
        seconds: float = self.said["end"] - self.said["begin"]
        return seconds

    @property
    def calls_per_cpu_second(self) -> float:
        """Of all its processes but Ray's own daemons."""
        own = sum(seconds for role, seconds in self.cpu_seconds.items() if role != DAEMON)
        return self.served.num_accepted / own

    @property
    def calls_per_cpu_second_with_daemons(self) -> float:
        return self.served.num_accepted / sum(self.cpu_seconds.values())

    def cpu_text(self) -> str:
        return ", ".join(f"{role} {seconds:.1f} s" for role, seconds in sorted(self.cpu_seconds.items()))


def run_contender(
    name: str,
    teacher: TeacherProcess,
    settings: dict[str, Any],
    folder: Path,
    python: Path = Path(sys.executable),
) -> Result:
    """Runs contenders/NAME.py with the settings; its output goes into `folder`."""
    folder.mkdir()
    script = str(CONTENDERS / f"{name}.py")
    arguments = json.dumps(settings | {"base_url": teacher.base_url, "folder": str(folder)})
    environment = {key: value for key, value in os.environ.items() if key.lower() not in LEFT_OUT}
    environment.pop("RAY_ADDRESS", None)
    started = time.monotonic()
    with (folder / "errors.log").open("wb") as errors:
        process = subprocess.Popen(
            [str(python), script, arguments], stdout=subprocess.PIPE, stderr=errors, env=environment
        )
    try:
        with ProcessWatch(process.pid) as watch:
            output, _ = process.communicate()
    finally:
        process.kill()
    lines = output.decode().splitlines()
    if process.returncode or not lines:
        log = (folder / "errors.log").read_text(errors="replace")
        raise RuntimeError(f"{name} ended with exit code {process.returncode}:\n{log[-2000:]}")
    said = json.loads(lines[-1])
    served = teacher.served()
    cpu_seconds = watch.cpu_by_role(served.first_call_at, served.last_answer_at)
    return Result(served, said, said["begin"] - started, cpu_seconds, watch.lives)
