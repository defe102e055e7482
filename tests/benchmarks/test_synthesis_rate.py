"""Rows a second of the synthesis, with one worker and with two, in one run: a ratio, as machines differ."""

import csv
import time
from pathlib import Path

import pytest

from asclepius_ray.artifacts import Folder
from asclepius_ray.chat.config import EndpointConfig
from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.chat.offline.faults import Faults
from asclepius_ray.chat.offline.server import OfflineTeacher
from asclepius_ray.progress import Progress
from asclepius_ray.synthesis.config import InputConfig, SynthesisConfig
from asclepius_ray.synthesis.stage import Order, synthesize

PROJECT = Path(__file__).resolve().parents[2]
NUM_ROWS = 600
LATENCY_SECONDS = 0.2
IN_FLIGHT = 64


def write_reports(target: Path) -> None:
    """The project's own reports, over and over, each with a patient of its own."""
    with (PROJECT / "jobs" / "runs" / "quickstart_reports.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    with target.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        for number in range(NUM_ROWS):
            writer.writerow(rows[number % len(rows)] | {"patient_uid": f"{number + 1}-1"})


def test_synthesis_keeps_the_allowed_requests_in_flight(
    ray_cluster: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_reports(tmp_path / "reports.csv")
    seconds: dict[int, float] = {}
    for workers in (1, 2):
        with OfflineTeacher(faults=Faults(latency_seconds=LATENCY_SECONDS)) as teacher:
            config = EndpointConfig(base_url=teacher.base_url, model="offline-rules", max_in_flight=IN_FLIGHT)
            endpoint = Endpoint.from_config(config, teacher.base_url, "")
            started = time.monotonic()
            with Progress() as progress:
                source = InputConfig(path=str(tmp_path / "reports.csv"))
                order = Order(source, SynthesisConfig(workers=workers), endpoint, 0, {})
                synthesize(Folder(str(tmp_path / str(workers))), order, progress)
            seconds[workers] = time.monotonic() - started
            most = teacher.most_in_flight
        assert most <= IN_FLIGHT
    ideal = 3 * NUM_ROWS * LATENCY_SECONDS / IN_FLIGHT
    with capsys.disabled():
        for workers, taken in seconds.items():
            rate = NUM_ROWS / taken
            line = f"{workers} worker(s): {rate:.1f} rows/s, {taken / ideal:.2f} times the ideal's time"
            Progress().say(line)
