"""A synthesis whose teacher is a model that the run itself serves: from its weights to the dataset."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pyarrow.parquet
import pytest
from babbling_model import NUM_WORDS, save_babbling_model

from asclepius_ray.artifacts import Folder, read_manifest
from asclepius_ray.config import told_apart

pytestmark = pytest.mark.long

PROJECT = Path(__file__).parents[1]
ASCLEPIUS = Path(sys.executable).parent / "asclepius"
REPORTS = PROJECT / "jobs" / "runs" / "quickstart_reports.csv"
NUM_ROWS = 12


def test_a_served_model_is_asked_for_every_step_and_ends_with_the_run(tmp_path: Path) -> None:
    with REPORTS.open(newline="", encoding="utf-8") as stream:
        save_babbling_model(tmp_path / "model", [row["patient"] for row in csv.DictReader(stream)])
    root = tmp_path / "root"
    settings = (
        f"root={root}",
        "teacher.base_url=",
        f"teacher.model_path={tmp_path / 'model'}",
        "teacher.max_in_flight=4",
        *(f"teacher.sampling.{step}={{max_tokens = 32}}" for step in ("note", "question", "answer")),
        f"input.limit={NUM_ROWS}",
        "synthesis.pilot_rows=4",
        # It babbles: the words are real ones, and say nothing.
        "synthesis.min_note_words=5",
        "synthesis.fidelity=[]",
    )
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    process = subprocess.Popen(
        [
            ASCLEPIUS, "run", "synthesize", "jobs/runs/quickstart.toml",
            *(part for setting in settings for part in ("--set", setting)),
        ],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment | {"PYTHONPATH": str(PROJECT), "CUDA_VISIBLE_DEVICES": ""},
        start_new_session=True,
    )  # fmt: skip
    output, _ = process.communicate(timeout=280)
    assert process.returncode == 0, output
    assert "Traceback" not in output
    manifest = read_manifest(Folder(str(root / "dataset")))
    assert manifest.counts == {"input": NUM_ROWS, "ok": NUM_ROWS, "rejected": {}, "failed": {}}
    assert manifest.details["teacher"]["is_offline"] is False
    assert manifest.details["models"] == [told_apart(str(tmp_path / "model"))]
    # What goes out when the dataset is published tells nothing of this machine.
    for name in ("manifest.json", "README.md"):
        assert str(tmp_path) not in (root / "dataset" / name).read_text()
    for step in ("note", "question", "answer"):
        usage = manifest.details["usage"][step]
        assert usage["calls"] == NUM_ROWS
        assert NUM_WORDS * NUM_ROWS <= usage["completion_tokens"] <= (NUM_WORDS + 1) * NUM_ROWS
        assert usage["prompt_tokens"] > 100 * NUM_ROWS
    train = pyarrow.parquet.read_table(root / "dataset" / "train-00000.parquet").to_pylist()
    assert len({row["note"] for row in train}) == len(train) > 5
    assert all(len(row[name].split()) == NUM_WORDS for row in train for name in ("note", "answer"))
    # What served it was of the run's own session of processes.
    _gone, left = psutil.wait_procs(
        [one for one in psutil.process_iter() if os.getsid(one.pid) == process.pid], 60
    )
    assert [one for one in left if one.is_running() and one.status() != psutil.STATUS_ZOMBIE] == []
