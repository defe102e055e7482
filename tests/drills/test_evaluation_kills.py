"""An evaluation of real answers to real notes is killed and goes on: same figures, nothing bought twice."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from benchmarks.teacher_process import teacher_process
from synthesis_runs import counted_by

from asclepius_ray.errors import Interrupted

pytestmark = pytest.mark.long

PROJECT = Path(__file__).resolve().parents[2]
ASCLEPIUS = Path(sys.executable).parent / "asclepius"
MODELS = ("gpt-3.5", "alpaca", "clinical-alpaca")
NUM_ITEMS, NUM_ORDERS = 500, 2
LATENCY_SECONDS, MAX_IN_FLIGHT = 0.05, 8
RUN_FILE = """
name = "camel"
root = "{root}"
seed = 7

[judge]
base_url = "{url}"
model = "offline-rules"
max_in_flight = {places}

[evaluation]
models = ["gpt-3.5", "alpaca", "clinical-alpaca"]
test_set = "{table}"
orders = 2

[evaluation.columns]
note = "input"
question = "instruction"
task = "type"

[evaluation.answer_columns]
"gpt-3.5" = "gpt-3.5"
alpaca = "alpaca"
clinical-alpaca = "clinical-alpaca"
"""


@contextmanager
def running(run_file: Path) -> Iterator[subprocess.Popen[bytes]]:
    clean = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with run_file.with_suffix(".log").open("ab") as log:
        process = subprocess.Popen(
            [ASCLEPIUS, "run", "evaluate", str(run_file)], stdout=log, stderr=log, env=clean, cwd=PROJECT
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(60)


def write_run(folder: Path, name: str, table: Path, url: str) -> Path:
    run_file = folder / f"{name}.toml"
    run_file.write_text(RUN_FILE.format(root=folder / name, url=url, table=table, places=MAX_IN_FLIGHT))
    return run_file


def scores_of(folder: Path) -> dict[str, Any]:
    scores: dict[str, Any] = json.loads((folder / "evaluation" / "scores.json").read_text())
    for name in ("seconds", "written_unix", "run"):
        del scores[name]
    return scores


def test_a_killed_evaluation_of_real_answers_goes_on_and_ends_with_the_same_figures(
    tmp_path: Path, shared_data: Path
) -> None:
    table = shared_data / "mtsamples" / "camel_eval_500.jsonl"
    with teacher_process() as teacher:
        unbroken = write_run(tmp_path, "unbroken", table, teacher.base_url)
        with running(unbroken) as process:
            assert process.wait(400) == 0, unbroken.with_suffix(".log").read_text()
        expected = counted_by(teacher.base_url)
    num_repeated = []
    with teacher_process(latency_seconds=LATENCY_SECONDS) as teacher:
        killed = write_run(tmp_path, "killed", table, teacher.base_url)
        for share, how in ((0.25, signal.SIGKILL), (0.6, signal.SIGTERM)):
            with running(killed) as process:
                until = time.monotonic() + 120
                while counted_by(teacher.base_url).num_answered < share * expected.num_answered:
                    assert process.poll() is None, killed.with_suffix(".log").read_text()
                    assert time.monotonic() < until
                    time.sleep(0.1)
                process.send_signal(how)
                code = process.wait(20)
                if how is signal.SIGTERM:
                    assert code == Interrupted.exit_code, killed.with_suffix(".log").read_text()
            # What the run before has bought and lost is asked for again by the next one.
            num_repeated.append(counted_by(teacher.base_url).num_repeated)
        with running(killed) as process:
            assert process.wait(400) == 0, killed.with_suffix(".log").read_text()
        counted = counted_by(teacher.base_url)
    scores = scores_of(tmp_path / "killed")
    assert scores == scores_of(tmp_path / "unbroken")
    assert counted.num_prompts == expected.num_prompts
    # The kill costs two seconds' worth of answers and what was on its way, SIGTERM the latter at most.
    at_kill, at_sigterm = num_repeated
    assert at_kill <= expected.num_repeated
    assert at_sigterm - at_kill <= (2.0 / LATENCY_SECONDS + 1) * MAX_IN_FLIGHT
    assert counted.num_repeated - at_sigterm <= MAX_IN_FLIGHT + expected.num_repeated
    over_all = [scores["models"][model]["grades"]["judge"]["over_all"] for model in MODELS]
    assert [one["items"] for one in over_all] == [NUM_ITEMS] * 3
    assert [one["judged"] + one["unjudged"] + one["failed"] for one in over_all] == [NUM_ITEMS] * 3
    assert len({one["mean"] for one in over_all}) == 3
    assert scores["test_set"]["notes"] == 50
