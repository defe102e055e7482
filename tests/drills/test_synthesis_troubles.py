"""An outage, a row that kills its worker, garbage: a synthesis lives through them and counts every row."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.parquet as pq
import pytest
from benchmarks.teacher_process import TeacherProcess, teacher_process
from synthesis_runs import (
    ARTEFACTS,
    PROJECT,
    Order,
    Run,
    check_counts,
    counted_by,
    files_of,
    manifest_of,
    num_durable,
    started,
    unbroken_manifest,
)

from asclepius_ray.artifacts import Folder
from asclepius_ray.chat.journal.journal import Journal
from asclepius_ray.chat.row_deaths import DEATHS_MARK, LONE_DEATHS_MARK, LONE_DEATHS_TO_QUARANTINE
from asclepius_ray.synthesis.steps import STEPS

HERE = Path(__file__).parent
IN_FLIGHT = 16
GUARD = {"RAY_DATA_EXECUTION_NO_PROGRESS_TIMEOUT_S": "20"}
OUTAGE_SECONDS = 40.0
SHORT_OUTAGE_SECONDS = 10.0
WHY = "no answer from the endpoint for"
GARBAGE = {
    "bad_request": 0.02,
    "truncation": 0.05,
    "refusal": 0.01,
    "empty": 0.01,
    "malformed": 0.01,
    "hang": 0.01,
}
TEXTS = ("of the ward", "of the summary say")
"""What stands in every note and in every question of a teacher of short replies."""


def status_of(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / "status.json").read_text())
    return found


@contextmanager
def guarded_walk(folder: Path, order: Order) -> Iterator["subprocess.Popen[str]"]:
    """The same plan under the guard, in a process of its own, where nothing listens."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        base_url = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
        process = subprocess.Popen(
            [sys.executable, HERE / "guarded_walk.py", folder, order.reports, base_url],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | GUARD | {"PYTHONPATH": str(PROJECT)},
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def live_through_an_outage(run: Run, root: Path, teacher: TeacherProcess) -> int:
    """Kills the teacher; when the outage is over: what is durable, which has not changed meanwhile."""
    accepted = counted_by(teacher.base_url).num_accepted
    teacher.process.kill()
    until = time.monotonic() + OUTAGE_SECONDS
    run.wait_until(lambda: WHY in status_of(root)["why_waiting"])
    durable = num_durable(root)
    assert accepted - durable <= IN_FLIGHT, "an answer that came before the outage is lost"
    run.wait_until(lambda: time.monotonic() > until)
    assert WHY in status_of(root)["why_waiting"]
    assert WHY in run.output
    assert num_durable(root) == durable
    return durable


@pytest.mark.long
def test_an_outage_of_twice_the_guard_s_time_costs_nothing_but_time(
    small_order: Order, tmp_path: Path
) -> None:
    root, num_calls = tmp_path / "root", len(STEPS) * small_order.num_rows
    settings = (f"teacher.max_in_flight={IN_FLIGHT}", "teacher.max_attempts=3")
    with (
        teacher_process(short=1, latency_seconds=0.2) as teacher,
        started(Run(root, small_order, teacher.base_url, *settings, environment=GUARD)) as run,
    ):
        run.wait_until(lambda: counted_by(teacher.base_url).num_prompts >= num_calls / 3)
        with guarded_walk(tmp_path / "guarded", small_order) as guarded:
            durable = live_through_an_outage(run, root, teacher)
            guarded_says, _ = guarded.communicate(timeout=60)
        port = int(teacher.base_url.rpartition(":")[2].removesuffix("/v1"))
        again = {"outage_after_seconds": 3.0, "outage_seconds": SHORT_OUTAGE_SECONDS}
        with teacher_process(port, short=1, latency_seconds=0.2, **again) as returned:
            assert run.end() == 0, run.output
            counted = counted_by(returned.base_url)
    assert counted.num_prompts == num_calls - durable
    assert counted.num_repeated == 0
    # The server that answers 503 is tried gently, though all rows wait for it.
    assert IN_FLIGHT < counted.faults_met["outage"] < small_order.num_rows / 2
    assert files_of(root) == small_order.files
    assert manifest_of(root).counts["failed"] == {}
    assert "the guard has ended it" in guarded_says, guarded_says


def test_a_row_that_kills_its_worker_is_given_up_and_no_other(small_order: Order, tmp_path: Path) -> None:
    root, row_id = tmp_path / "root", f"{small_order.num_rows // 2}-1"
    deadly = {"PYTHONPATH": f"{HERE / 'poison'}:{PROJECT}", "POISONOUS_ROW": row_id}
    with teacher_process(short=1) as teacher:
        with started(Run(root, small_order, teacher.base_url, environment=deadly)) as run:
            assert run.end() == 0, run.output
        counts, asked = manifest_of(root).counts, counted_by(teacher.base_url)
        again = Run(root, small_order, teacher.base_url, arguments=("--only", "failed"))
        journal = Journal.open(Folder(str(root / "journal" / "teacher")))
        with started(again):
            assert again.end() == 0, again.output
        asked_again = counted_by(teacher.base_url)
    unbroken = unbroken_manifest(small_order).counts
    assert counts == unbroken | {"ok": unbroken["ok"] - 1, "failed": {"quarantined": 1}}
    deaths, lone_deaths = (
        {row: number for mark in journal.marks(kind) for row, number in mark.items()}
        for kind in (DEATHS_MARK, LONE_DEATHS_MARK)
    )
    assert lone_deaths == {row_id: LONE_DEATHS_TO_QUARANTINE}
    assert len(deaths) > 1, "no other row was in a worker that was killed"
    assert asked.num_prompts == len(STEPS) * (small_order.num_rows - 1)
    assert asked_again.num_accepted - asked.num_accepted == len(STEPS)
    assert files_of(root) == small_order.files


def test_garbage_of_every_kind_is_counted_and_no_text_gets_out(small_order: Order, tmp_path: Path) -> None:
    root, num_rows = tmp_path / "root", small_order.num_rows // 2
    settings = (
        f"input.limit={num_rows}",
        "synthesis.max_failed_share=1.0",
        "synthesis.max_note_similarity=1.0",
        "teacher.timeout_seconds=3",
        "teacher.max_attempts=2",
    )
    faults = GARBAGE | {"requests_per_minute": 3000, "lasting": 1}
    with TemporaryDirectory(prefix="ray-") as logs, teacher_process(short=1, **faults) as teacher:
        kept = {"RAY_TMPDIR": logs}
        with started(Run(root, small_order, teacher.base_url, *settings, environment=kept)) as run:
            assert run.end() == 0, run.output
        counted = counted_by(teacher.base_url)
        check_no_text(run, root, Path(logs))
    counts, met = manifest_of(root).counts, counted.faults_met
    check_counts(manifest_of(root), num_rows)
    assert set(GARBAGE) <= set(met)
    assert counted.num_refusals > 0
    assert counts["rejected"] == {"refusal": met["refusal"]}
    timeouts = counts["failed"].pop("timeout")
    # One that hangs while nobody else is answered may be tried once more.
    assert 1 <= timeouts <= met["hang"] / 2
    assert counts["failed"] == {
        "bad_request": met["bad_request"],
        "empty": met["empty"] / 2,
        "malformed": met["malformed"] / 2,
        "truncated": met["truncation"] / 2,
    }


def check_no_text(run: Run, root: Path, logs: Path) -> None:
    notes = pq.read_table(root / "notes" / "train-00000.parquet")["note"].to_pylist()
    assert notes
    assert all(TEXTS[0] in note for note in notes)
    rejected = json.dumps(pq.read_table(root / "rejected" / "rejected-00000.parquet").to_pylist())
    files = [root / "status.json", root / "run.json", *(root / name / "manifest.json" for name in ARTEFACTS)]
    files += [file for file in logs.rglob("*") if file.is_file()]
    assert any(file.name.startswith("worker-") for file in files)
    shown = [run.output, rejected, *(file.read_text(errors="replace") for file in files)]
    assert not [text for text in TEXTS for content in shown if text in content]
