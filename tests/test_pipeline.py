"""The whole line, as a user runs it: one command, real Ray, real DeepSpeed, a real HTTP endpoint."""

import csv
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet
import pytest
from command_here import run_here
from scraping import Series, scraping, value_of
from watched_names import asked_names

from asclepius_ray.artifacts import Folder, read_manifest

pytestmark = pytest.mark.whole

PROJECT = Path(__file__).resolve().parents[1]
ASCLEPIUS = Path(sys.executable).parent / "asclepius"
CANARY = "zyqcanary"
NUM_REPORTS = 20
NOT_OF_A_SMALL_RUN = {
    # Of trouble.
    "ray_asclepius_serving_refused_requests_total",
    "ray_asclepius_serving_audit_lines_lost_total",
    "ray_asclepius_synthesis_lost_rows",
    # Of GPUs.
    "ray_asclepius_training_device_memory_gib",
    "ray_asclepius_training_model_flops_utilisation",
    # Of a synthesis that takes longer than a moment.
    "ray_asclepius_synthesis_seconds_left",
    # Of a teacher with a price, a budget and limits.
    "ray_asclepius_synthesis_cost_usd",
    "ray_asclepius_synthesis_budget_usd",
    "ray_asclepius_synthesis_requests_per_minute",
    "ray_asclepius_evaluation_cost_usd",
    "ray_asclepius_evaluation_budget_usd",
    "ray_asclepius_evaluation_purse_budget_usd",
    "ray_asclepius_evaluation_purse_settled_usd",
    "ray_asclepius_evaluation_purse_unsettled_usd",
}
"""What a run on this machine has no value for; that each of them is exported is seen in tests/cluster."""


@dataclass(frozen=True)
class Finished:
    root: Path
    lines: list[tuple[float, str]]
    """Seconds since the start, and the line."""
    logs: Path
    code: int
    arguments: list[str]
    exported: Series

    @property
    def text(self) -> str:
        return "\n".join(line for _, line in self.lines)


def write_reports(target: Path) -> None:
    """The first of the project's own reports, each with a word that must not turn up in any log."""
    with (PROJECT / "jobs" / "runs" / "quickstart_reports.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))[:NUM_REPORTS]
    for row in rows:
        row["patient"] = f"The patient lives in {CANARY}. " + row["patient"]
    with target.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def run_and_time(arguments: list[str], ray_folder: Path) -> tuple[list[tuple[float, str]], int]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    started = time.monotonic()
    process = subprocess.Popen(
        arguments,
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Told every second and not every ten: the stages of a small run are short.
        env={**environment, "RAY_TMPDIR": str(ray_folder), "RAY_metrics_report_interval_ms": "1000"},
    )
    timer = threading.Timer(280, process.kill)
    timer.start()
    assert process.stdout is not None
    lines = [(time.monotonic() - started, line.rstrip()) for line in process.stdout]
    timer.cancel()
    return lines, process.wait()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    """The pipeline on a few reports, with the token authentication that Ray turns on by itself."""
    folder = tmp_path_factory.mktemp("pipeline")
    write_reports(folder / "reports.csv")
    # Ray's sockets lie below it, and the path of a socket holds 107 characters at most.
    ray_folder = Path(tempfile.mkdtemp(prefix="ray-"))
    settings = (
        f"root={folder / 'root'}",
        f"input.path={folder / 'reports.csv'}",
        "training.phases=[{kind='notes', epochs=1, learning_rate=2e-3}, "
        "{kind='instructions', epochs=2, learning_rate=2e-3}]",
        "evaluation.max_new_tokens=16",
    )
    sets = [part for setting in settings for part in ("--set", setting)]
    arguments = [str(ASCLEPIUS), "run", "pipeline", "jobs/runs/quickstart.toml", *sets]
    with scraping(ray_folder) as exported:
        lines, code = run_and_time(arguments, ray_folder)
    yield Finished(folder / "root", lines, ray_folder, code, arguments, exported)
    shutil.rmtree(ray_folder)


def test_one_command_leads_from_reports_to_scores_and_an_answer(finished: Finished) -> None:
    assert finished.code == 0, finished.text
    assert (finished.root / "report.html").is_file()
    assert str(finished.root / "report.html") in finished.text
    for expected in ("mean grade", "trained - untrained", "asked   ", "answer  ", "how to go on", "offline"):
        assert expected in finished.text
    assert "Traceback" not in finished.text


def test_every_input_row_ends_in_one_counted_state(finished: Finished) -> None:
    counts = read_manifest(Folder(str(finished.root / "dataset"))).counts
    assert counts["input"] == NUM_REPORTS
    assert counts["ok"] > NUM_REPORTS / 2
    assert counts["input"] == counts["ok"] + sum(counts["rejected"].values()) + sum(counts["failed"].values())
    rejected = pyarrow.parquet.read_table(finished.root / "rejected" / "rejected-00000.parquet").num_rows
    written = sum(
        pyarrow.parquet.read_table(file).num_rows for file in (finished.root / "dataset").glob("*.parquet")
    )
    assert written == counts["ok"]
    assert rejected == counts["input"] - counts["ok"]


def test_the_run_folder_holds_what_it_promises_and_is_private(finished: Finished) -> None:
    names = {entry.name for entry in finished.root.iterdir()}
    assert names >= {
        "run.json",
        "lease",
        "notes",
        "dataset",
        "rejected",
        "tokens",
        "training",
        "base_model",
        "model",
        "evaluation",
        "report.html",
    }
    assert stat.S_IMODE(finished.root.stat().st_mode) == 0o700
    assert (finished.root / "model" / "model.safetensors").is_file()


def test_something_is_said_at_least_every_ten_seconds(finished: Finished) -> None:
    times = [0.0, *(seconds for seconds, _ in finished.lines)]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert max(gaps) < 10.5, finished.lines[gaps.index(max(gaps))]


def test_no_text_of_a_patient_is_in_a_log(finished: Finished) -> None:
    said = [line for _, line in finished.lines if not line.startswith(("asked   ", "answer  "))]
    assert not [line for line in said if CANARY in line]
    logs = [file for file in finished.logs.rglob("*") if file.is_file() and "logs" in file.parts]
    assert len(logs) > 10
    assert not [file.name for file in logs if CANARY.encode() in file.read_bytes()]
    notes = pyarrow.parquet.read_table(finished.root / "notes" / "train-00000.parquet")["note"].to_pylist()
    assert any(CANARY in note for note in notes)


def test_all_that_rules_and_dashboard_ask_for_is_exported_by_the_run(finished: Finished) -> None:
    names = {series.partition("{")[0] for series in finished.exported}
    missing = asked_names().keys() - names
    assert missing <= NOT_OF_A_SMALL_RUN, missing - NOT_OF_A_SMALL_RUN
    counts = read_manifest(Folder(str(finished.root / "dataset"))).counts
    rows = {
        state: value_of(finished.exported, "ray_asclepius_synthesis_rows", f'state="{state}"')
        for state in ("done", "failed")
    }
    assert rows["done"] == NUM_REPORTS
    assert rows["failed"] == sum(counts["failed"].values())
    step = value_of(finished.exported, "ray_asclepius_training_step")
    assert step == read_manifest(Folder(str(finished.root / "training"))).counts["steps"]
    assert value_of(finished.exported, "ray_asclepius_training_checkpoint_step") <= step
    assert value_of(finished.exported, "ray_asclepius_training_active") == 0
    judged = read_manifest(Folder(str(finished.root / "evaluation"))).counts["judged"]
    assert value_of(finished.exported, "ray_asclepius_evaluation_grades", 'verdict="judged"') == judged
    label = f'run="{Folder(str(finished.root)).run_label}"'
    assert all(label in series for series in finished.exported if "_synthesis_" in series)
    assert not [series for series in finished.exported if CANARY in series]


def test_a_second_run_makes_nothing_anew(finished: Finished) -> None:
    before = {file: file.stat().st_mtime_ns for file in finished.root.rglob("*.parquet")}
    lines, code = run_and_time(finished.arguments, finished.logs)
    text = "\n".join(line for _, line in lines)
    assert code == 0, text
    assert lines[-1][0] < 60
    assert len(re.findall("finished already, skipped", text)) == 3
    assert "asked   " in text
    assert before == {file: file.stat().st_mtime_ns for file in finished.root.rglob("*.parquet")}


def test_the_resolved_run_file_is_kept(finished: Finished) -> None:
    values = json.loads((finished.root / "run.json").read_text())
    assert values["evaluation"]["max_new_tokens"] == 16
    assert values["training"]["zero_stage"] == 2


def test_the_status_of_the_run_tells_what_is_finished(finished: Finished) -> None:
    ended = subprocess.run(
        [ASCLEPIUS, "status", finished.root], capture_output=True, text=True, timeout=60, check=True
    )
    assert len(re.findall(r"\bfinished\b", ended.stdout)) == 3
    assert "not finished" not in ended.stdout
    assert "in use by nobody" in ended.stdout


def test_a_changed_setting_is_refused_and_redo_makes_that_stage_and_the_next_anew(
    finished: Finished, ray_cluster: str
) -> None:
    changed = [*finished.arguments[1:], "--set", "evaluation.limit=1"]
    code, said, complaints = run_here(*changed)
    assert code == 3, said + complaints
    code, said, complaints = run_here(*changed, "--redo", "evaluate")
    assert code == 0, said + complaints
    assert len(re.findall("finished already, skipped", said + complaints)) == 2
    scores = json.loads((finished.root / "evaluation" / "scores.json").read_text())
    assert scores["models"]["trained"]["grades"]["judge"]["over_all"]["items"] == 1
