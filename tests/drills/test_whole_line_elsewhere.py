"""The whole line on 200 real case reports with its root in a bucket, and on real notes."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from asclepius_ray.artifacts import Folder, is_finished, read_manifest

pytestmark = pytest.mark.long

PROJECT = Path(__file__).resolve().parents[2]
ASCLEPIUS = Path(sys.executable).parent / "asclepius"
STATUS_SECONDS = 4.0
SHORT = (
    "training.phases=[{kind='notes', epochs=1, learning_rate=2e-3}, {kind='instructions', epochs=1}]",
    "evaluation.limit=3",
)


def run_pipeline(*overrides: str, environment: dict[str, str] | None = None) -> str:
    sets = [part for override in overrides for part in ("--set", override)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    ended = subprocess.run(
        [ASCLEPIUS, "run", "pipeline", "jobs/runs/quickstart.toml", *sets],
        cwd=PROJECT,
        env=clean | (environment or {}),
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def call_status(root: str) -> str:
    """What `asclepius status` says; "" as long as nothing is there."""
    ended = subprocess.run([ASCLEPIUS, "status", root], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0 or "is not the folder of a run" in ended.stderr, ended.stderr
    return ended.stdout


@contextmanager
def asking_for_the_status(root: str) -> Iterator[list[str]]:
    """Yields what the command has said every few seconds, which grows."""
    said, ended = list[str](), threading.Event()

    def ask() -> None:
        while not ended.wait(STATUS_SECONDS):
            said.append(call_status(root))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield said
    finally:
        ended.set()
        thread.join()


def test_real_notes_are_used_as_they_are_and_their_text_is_not_printed(
    tmp_path: Path, shared_data: Path
) -> None:
    root = tmp_path / "root"
    notes = shared_data / "mtsamples" / "sample_250.csv"
    output = run_pipeline(f"input.path={notes}", "input.kind=notes", "input.limit=30", f"root={root}", *SHORT)
    counts = read_manifest(Folder(str(root / "dataset"))).counts
    assert counts["input"] == 30
    assert "answer  " not in output


@pytest.fixture
def bucket() -> Iterator[dict[str, str]]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        # The address of the machine that runs this may stand behind a proxy's rules.
        "NO_PROXY": "*",
    }
    client = boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )
    client.create_bucket(Bucket="runs")
    yield environment
    server.stop()


def test_two_hundred_real_reports_become_a_served_model_with_the_root_in_a_bucket(
    bucket: dict[str, str], monkeypatch: pytest.MonkeyPatch, shared_data: Path
) -> None:
    reports = shared_data / "pmc_patients" / "v1_first_500.csv"
    settings = (f"input.path={reports}", "input.limit=200", "root=s3://runs/first", SHORT[0])
    settings += ("evaluation.limit=12",)
    for name, value in bucket.items():
        monkeypatch.setenv(name, value)
    with asking_for_the_status("s3://runs/first") as said:
        run_pipeline(*settings, environment=bucket)
    at_work = {line.split()[0] for text in said for line in text.splitlines() if " at work " in line}
    assert at_work >= {"synthesize", "train"}, said
    assert any(re.search(r"step \d+, loss ", text) for text in said), said
    assert call_status("s3://runs/first").count("finished") == 3
    root = Folder("s3://runs/first")
    for artifact in (
        "notes",
        "dataset",
        "rejected",
        "base_model",
        "tokens",
        "training",
        "model",
        "evaluation",
    ):
        assert is_finished(root.child(artifact)), artifact
    assert root.exists("report.html")
    counts = read_manifest(root.child("dataset")).counts
    assert counts["input"] == 200
    assert counts["ok"] >= 190
    loss = json.loads(root.read_bytes("evaluation/scores.json"))["answer_loss"]["difference"]
    assert loss["high"] < 0, "training did not lower the loss of held-out answers"
    again = run_pipeline(*settings, environment=bucket)
    assert again.count("finished already, skipped") == 3
