"""A teacher in a process of its own, invented reports in any number, and the synthesis of them."""

import contextlib
import csv
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from asclepius_ray.artifacts import Folder, Manifest
from asclepius_ray.chat.config import OFFLINE_MODEL
from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.progress import Progress
from asclepius_ray.synthesis.config import InputConfig, SynthesisConfig
from asclepius_ray.synthesis.stage import Order, synthesize

PROJECT = Path(__file__).resolve().parents[2]


@dataclass
class TeacherProcess:
    base_url: str
    pid: int

    def counters(self) -> dict[str, Any]:
        answer = httpx.get(f"{self.base_url.removesuffix('/v1')}/offline/counters", timeout=60.0)
        found: dict[str, Any] = answer.json()
        return found


@contextlib.contextmanager
def teacher_process(**faults: float) -> Iterator[TeacherProcess]:
    """The offline teacher as a process of its own, as a provider is."""
    command = [sys.executable, "-m", "asclepius_ray.cli", "teacher", "--port", "0"]
    for name, value in faults.items():
        command += ["--fault", f"{name}={value:g}"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"COLUMNS": "200"}
    )
    assert process.stdout is not None
    try:
        yield TeacherProcess(process.stdout.readline().strip(), process.pid)
    finally:
        process.terminate()
        process.wait(timeout=30)


def write_reports(target: Path, num_rows: int) -> None:
    """The project's own reports, over and over, each of a patient of its own and with words of its own."""
    with (PROJECT / "jobs" / "runs" / "quickstart_reports.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    with target.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        for number in range(num_rows):
            row = rows[number % len(rows)]
            text = f"This is report {number} of the ward. {row['patient']}"
            writer.writerow(row | {"patient_uid": f"{number + 1}-1", "patient_id": number, "patient": text})


def run_synthesis(
    root: Path,
    reports: Path,
    teacher: TeacherProcess,
    workers: int = 2,
    progress: Progress | None = None,
    **settings: Any,
) -> tuple[Manifest, float]:
    """The manifest of the dataset and the seconds that it took, Ray being there already."""
    config = SynthesisConfig(workers=workers)
    endpoint = Endpoint(teacher.base_url, OFFLINE_MODEL, is_offline=True, **settings)
    order = Order(InputConfig(path=str(reports)), config, endpoint, 0, {"seed": 0})
    started = time.monotonic()
    manifest = synthesize(Folder(str(root)), order, progress or Progress(Console(quiet=True)))
    return manifest, time.monotonic() - started


def share_of_limit(accepted_at: Sequence[float], per_minute: int) -> float:
    """Accepted calls between their 5th and 95th percentile, as a share of what the limit allows."""
    cuts = statistics.quantiles(accepted_at, n=20)
    inside = sum(cuts[0] <= moment <= cuts[-1] for moment in accepted_at)
    return inside / (cuts[-1] - cuts[0]) * 60 / per_minute


def share_to_the_last_answer(counters: dict[str, Any], per_minute: int) -> float:
    """All accepted calls from the first of them to the last answer, as a share of what the limit allows."""
    accepted = counters["accepted_at"]
    return len(accepted) / (counters["last_answer_at"] - accepted[0]) * 60 / per_minute
