"""`asclepius status` of a root in a bucket, over real S3: what it says, and how little it asks."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer
from rich.console import Console

from asclepius_ray.artifacts import Folder, write_manifest
from asclepius_ray.errors import ArtifactError
from asclepius_ray.fingerprints import STAGES
from asclepius_ray.lease import Holder, acquire, read_holder
from asclepius_ray.metric_log import MetricLog
from asclepius_ray.run_state import LAST_ARTEFACTS
from asclepius_ray.run_status import print_status
from asclepius_ray.training.checkpoints.catalog import COMMIT_NAME, step_folder

MOST_REQUESTS = 40
ASCLEPIUS = Path(sys.executable).parent / "asclepius"
SYNTHESIS = {
    "rows": {"input": 50, "readable": 48, "done": 9, "ok": 5, "rejected": 3, "failed": 1},
    "tokens": 45_000, "cost_usd": 1.25, "budget_usd": 20.0, "refusals": 4, "requests_per_minute": None,
    "tokens_per_minute": None, "seconds_left": 90.0, "why_waiting": "", "updated_unix": time.time(),
}  # fmt: skip
EVALUATION = {
    "items": {"all": 12, "done": 5},
    "grades": {"judged": 9, "judge_failed": 1, "judge_unreadable": 0, "answer_failed": 0},
    "seats": {"judges/judge": {"cost_usd": 0.5}, "models/trained": {"cost_usd": None}},
}
Environment = dict[str, Any]


@dataclass
class Bucket:
    """A bucket, and how many requests it has had."""

    address: str
    num_requests: int = 0
    denies: bool = False

    def uri(self, path: str) -> str:
        return f"s3://runs/{path}?scheme=http&endpoint_override={self.address}&region=us-east-1"


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ["AWS_ACCESS_KEY_ID"] = os.environ["AWS_SECRET_ACCESS_KEY"] = "testing"
    boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1").create_bucket(
        Bucket="runs"
    )
    found = Bucket(f"{host}:{port}")
    assert server._server is not None
    answer: Callable[[Environment, Any], Iterable[bytes]] = server._server.app

    def counting(environment: Environment, start: Any) -> Iterable[bytes]:
        found.num_requests += 1
        if found.denies:
            start("403 Forbidden", [("Content-Type", "application/xml")])
            return [b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"]
        return answer(environment, start)

    server._server.app = counting
    yield found
    server.stop()


def ask(uri: str) -> subprocess.CompletedProcess[str]:
    """The command, in a process that may import neither ray nor torch."""
    forbidding = "import sys; sys.modules['ray'] = sys.modules['torch'] = None; "
    return subprocess.run(
        [sys.executable, "-c", forbidding + "from asclepius_ray.cli import main; main()", "status", uri],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "COLUMNS": "200", "AWS_EC2_METADATA_DISABLED": "true"},
    )


def said(uri: str) -> str:
    ended = ask(uri)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def begin(root: Folder) -> None:
    root.write_bytes("run.json", b"{}")
    root.write_bytes("status.json", json.dumps(SYNTHESIS).encode())


def finish(root: Folder, stage: str, counts: dict[str, Any]) -> None:
    folder = root.child(LAST_ARTEFACTS[stage])
    folder.write_bytes("content", b"x")
    write_manifest(folder, LAST_ARTEFACTS[stage], counts, {})


def train(root: Folder, steps: int) -> None:
    training = root.child("training")
    with MetricLog(training, 0) as log:
        for step in range(1, steps + 1):
            log.append({"step": step, "loss": 2.0 / step})
        log.append({"step": steps, "validation_loss": 0.1})
    for step in (4, 8):
        folder = step_folder(training, step)
        for rank in range(8):
            folder.write_bytes(f"rank-{rank}.bin", b"x")
        folder.write_bytes(COMMIT_NAME, b"{}")
    step_folder(training, 10).write_bytes("rank-0.bin", b"half")


def row_of(text: str, stage: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(f" {stage} "))


def test_the_stages_are_those_of_the_pipeline() -> None:
    assert {stage.name: stage.artifacts[-1] for stage in STAGES} == LAST_ARTEFACTS


def test_a_run_at_work_and_after_it(bucket: Bucket) -> None:
    root = Folder(bucket.uri("mine"))
    begin(root)
    held = acquire(root, "pipeline:1")
    try:
        synthesizing = said(root.uri)
        finish(root, "synthesize", {"input": 50, "ok": 40, "rejected": {"refusal": 6}, "failed": {}})
        train(root, 11)
        bucket.num_requests = 0
        training = said(root.uri)
        assert bucket.num_requests <= MOST_REQUESTS
        finish(root, "train", {"steps": 11})
        root.write_bytes("evaluation_status.json", json.dumps(EVALUATION).encode())
        evaluating = said(root.uri)
    finally:
        held.release(0)
    assert "at work" in row_of(synthesizing, "synthesize")
    assert "9 of 48 rows" in row_of(synthesizing, "synthesize")
    assert "1.2500 USD of 20.00" in row_of(synthesizing, "synthesize")
    assert "not begun" in row_of(synthesizing, "train")
    assert f"in use by process {os.getpid()} on {socket.gethostname()}" in synthesizing
    assert "ok 40, rejected 6, failed 0" in row_of(training, "synthesize")
    assert "step 11, loss 0.182; checkpoint of step 8, " in row_of(training, "train")
    assert "at work" in row_of(training, "train")
    assert "5 of 12 items, 9 judged, 1 unjudged" in row_of(evaluating, "evaluate")
    assert "0.5000 USD" in row_of(evaluating, "evaluate")
    finish(root, "evaluate", {"input": 12, "judged": 22})
    bucket.num_requests = 0
    after = said(root.uri)
    assert 0 < bucket.num_requests <= MOST_REQUESTS
    assert after.count("finished") == 3
    assert "in use by nobody" in after
    assert "asclepius run serve" in after


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"exit_code": 6}, "raise budget_usd"),
        ({"exit_code": 130}, "it was stopped"),
        ({"exit_code": 9}, "code 9"),
        ({"exit_code": 0}, "asclepius run synthesize RUN.toml"),
        ({"process_started_ticks": 1}, "has ended without a word"),
        (
            {"host": "elsewhere", "heartbeat_unix": 1.0},
            "ago by this machine's clock: if the two clocks agree",
        ),
        ({"host": "elsewhere", "heartbeat_unix": 4e9}, "ahead by this machine's clock"),
    ],
)
def test_what_to_do_next_follows_from_how_the_last_run_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], expected: str
) -> None:
    root = Folder(str(tmp_path))
    begin(root)
    acquire(root, "pipeline:1").release(0)
    holder = read_holder(root)
    assert isinstance(holder, Holder)
    changed = replace(holder, exit_code=None)
    root.write_bytes("lease", json.dumps(asdict(replace(changed, **changes))).encode())
    started = time.monotonic()
    print_status(Console(width=200), root)
    assert time.monotonic() - started < 2
    shown = capsys.readouterr().out
    assert expected in shown
    assert "broken off" in row_of(shown, "synthesize")


def test_an_evaluation_with_a_budget_of_the_whole_shows_what_is_spent_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Folder(str(tmp_path))
    begin(root)
    purse = {"settled_usd": 1.5, "unsettled_usd": 0.25, "budget_usd": 3.0}
    root.write_bytes("evaluation_status.json", json.dumps(EVALUATION | {"purse": purse}).encode())
    print_status(Console(width=200), root)
    shown = row_of(capsys.readouterr().out, "evaluate")
    assert "1.5000 USD, 0.2500 more may be charged, of 3.00" in shown


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("dataset/manifest.json", b"{", "is not readable JSON"),
        ("dataset/manifest.json", b'{"format_version": 99}', "has format version 99"),
        ("status.json", b"{", "is damaged"),
        ("status.json", b"[]", "has no budget_usd"),
        ("evaluation_status.json", b'{"items": {}}', "has no grades, seats"),
        ("training/metrics.jsonl", b'{"step": 1}\n{\n', "is damaged"),
    ],
)
def test_what_is_damaged_or_of_another_version_is_named(
    tmp_path: Path, name: str, content: bytes, expected: str
) -> None:
    root = Folder(str(tmp_path))
    begin(root)
    root.write_bytes(name, content)
    with pytest.raises(ArtifactError, match=expected):
        print_status(Console(width=200), root)


def test_a_root_that_is_absent_or_cannot_be_reached_is_a_clear_error(bucket: Bucket, tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = Bucket(f"127.0.0.1:{closed.getsockname()[1]}")
        cases = {
            bucket.uri("absent"): "is not the folder of a run",
            bucket.uri("mine").replace("s3://runs/", "s3://no-such-bucket/"): "is not the folder of a run",
            str(tmp_path / "absent"): "is not the folder of a run",
            nobody.uri("mine"): "cannot be read",
        }
        for uri, expected in cases.items():
            ended = ask(uri)
            assert ended.returncode == 2, ended.stderr
            assert expected in ended.stderr
            assert "Traceback" not in ended.stderr
            assert ended.stderr.count("\n") == 1


def test_a_bucket_that_may_not_be_read_is_a_clear_error(bucket: Bucket) -> None:
    bucket.denies = True
    ended = ask(bucket.uri("mine"))
    bucket.denies = False
    assert (ended.returncode, "cannot be read" in ended.stderr, "ACCESS_DENIED" in ended.stderr) == (
        2,
        True,
        True,
    )
    assert ended.stderr.count("\n") == 1
