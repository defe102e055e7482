"""The same job sent twice, with its root in a bucket: joined, and taken over if a driver dies."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_buckets import local_bucket
from local_heads import Head, started_head

from asclepius_ray.artifacts import Folder, read_manifest
from asclepius_ray.chat.offline.faults import Faults
from asclepius_ray.chat.offline.server import OfflineTeacher
from asclepius_ray.lease import read_holder

pytestmark = pytest.mark.long

PROJECT = Path(__file__).resolve().parents[2]
ASCLEPIUS = Path(sys.executable).parent / "asclepius"
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a-token-made-for-this-drill"}
NUM_ROWS = 16
LATENCY_SECONDS = 0.4
UNHURRIED_LATENCY_SECONDS = 10.0
"""Until one job follows the other: the first must not be through before the second has come so far."""
IN_FLIGHT = 2
NOT_DURABLE_SECONDS = 2.0
MOST_BOUGHT_TWICE = IN_FLIGHT + round(NOT_DURABLE_SECONDS * IN_FLIGHT / LATENCY_SECONDS)
"""What was under way, and what had come in the two seconds that an answer may take to be durable."""


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with local_bucket("twins") as uri:
        yield uri


@pytest.fixture(scope="module")
def head(bucket: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    with started_head(TOKEN, tmp_path_factory.mktemp("head"), num_workers=0) as head:
        yield head


def submit(head: Head, root: Folder, teacher: OfflineTeacher, log: Path) -> subprocess.Popen[bytes]:
    settings = (
        f"root={root.uri}",
        f"input.limit={NUM_ROWS}",
        f"teacher.base_url={teacher.base_url}",
        "teacher.model=offline-rules",
        f"teacher.max_in_flight={IN_FLIGHT}",
    )
    sets = [part for setting in settings for part in ("--set", setting)]
    with log.open("wb") as output:
        return subprocess.Popen(
            [
                ASCLEPIUS,
                "submit",
                "synthesize",
                "jobs/runs/quickstart.toml",
                "--address",
                head.address,
                *sets,
            ],
            cwd=PROJECT,
            env=head.environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def wait_for(log: Path, text: str, seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while text not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


@pytest.mark.parametrize("driver_dies", [False, True], ids=["both live", "the first is killed"])
def test_of_two_jobs_alike_one_works_and_nothing_durable_is_bought_twice(
    head: Head, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, driver_dies: bool
) -> None:
    is_followed = threading.Event()
    monkeypatch.setattr(
        Faults,
        "latency_of",
        lambda *_: LATENCY_SECONDS if is_followed.is_set() else UNHURRIED_LATENCY_SECONDS,
    )
    root = Folder(bucket.format(f"run-{driver_dies}"))
    logs = (tmp_path / "first.log", tmp_path / "second.log")
    with OfflineTeacher() as teacher:
        jobs = [submit(head, root, teacher, log) for log in logs]
        deadline = time.monotonic() + 200
        while not any("following it" in log.read_text() for log in logs):
            assert time.monotonic() < deadline, [log.read_text() for log in logs]
            time.sleep(0.1)
        is_followed.set()
        while sum(teacher.requests_answered.values()) < 12:
            assert time.monotonic() < deadline, [log.read_text() for log in logs]
            time.sleep(0.1)
        holder = read_holder(root)
        assert holder is not None
        if driver_dies:
            os.kill(holder.pid, signal.SIGKILL)
        codes = [job.wait(timeout=300) for job in jobs]
        bought_twice = teacher.bought_twice
    said = [log.read_text() for log in logs]
    assert sum(code == 0 for code in codes) == (1 if driver_dies else 2), said
    assert bought_twice <= (MOST_BOUGHT_TWICE if driver_dies else 0)
    assert read_manifest(root.child("dataset")).counts["input"] == NUM_ROWS
    ended = read_holder(root)
    assert ended is not None
    assert (ended.token != holder.token) == driver_dies
    assert ended.exit_code == 0
