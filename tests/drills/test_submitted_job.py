"""Submitted jobs that `ray job stop` ends, on a real cluster with token authentication on."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_heads import Head, started_head
from submitted_jobs import BIN, TOKEN, submit, wait_for_line

from asclepius_ray.artifacts import Folder, is_finished
from asclepius_ray.chat.offline.faults import Faults
from asclepius_ray.chat.offline.server import OfflineTeacher
from asclepius_ray.lease import read_holder
from asclepius_ray.training.checkpoints.catalog import committed_steps

pytestmark = pytest.mark.long

IN_FLIGHT = 2
SMALL = (
    "input.limit=16",
    "training.phases=[{kind='notes', epochs=1, learning_rate=2e-3}, {kind='instructions', epochs=1}]",
)


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    with started_head(TOKEN, tmp_path_factory.mktemp("head"), num_workers=0) as head:
        yield head


@pytest.fixture(scope="module")
def synthesized(head: Head, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a synthesis that ran as a submitted job."""
    root = tmp_path_factory.mktemp("whole") / "root"
    process = submit(head, "synthesize", root, *SMALL)
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output
    return root


def test_ray_job_stop_ends_a_job_in_order_and_it_can_be_submitted_again(head: Head, tmp_path: Path) -> None:
    root = tmp_path / "root"
    with OfflineTeacher(faults=Faults(latency_seconds=0.4)) as teacher:
        settings = (
            f"teacher.base_url={teacher.base_url}",
            "teacher.model=offline-rules",
            f"teacher.max_in_flight={IN_FLIGHT}",
        )
        process = submit(head, "synthesize", root, *SMALL, *settings)
        seen = wait_for_line(process, "synthesize 0/16")
        job_id = seen.split("job ", 1)[1].split(":", 1)[0]
        time.sleep(2)
        stop = [BIN / "ray", "job", "stop", "--address", head.address, job_id]
        subprocess.run(stop, env=head.environment, check=True, capture_output=True, timeout=100)
        rest, _ = process.communicate(timeout=60)
        assert process.returncode != 0
        assert "stopped by SIGTERM" in seen + rest
        assert not is_finished(Folder(str(root / "dataset")))
        holder = read_holder(Folder(str(root)))
        assert holder is not None
        assert holder.exit_code is not None
        again = submit(head, "synthesize", root, *SMALL, *settings)
        output, _ = again.communicate(timeout=120)
        assert again.returncode == 0, output
        # What was on its way at the stop is asked again, and nothing that had come.
        assert teacher.bought_twice <= IN_FLIGHT


def test_ray_job_stop_saves_the_training_and_it_goes_on_from_there(
    head: Head, synthesized: Path, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    for name in ("journal", "notes", "dataset", "rejected"):
        shutil.copytree(synthesized / name, root / name)
    longer = ("training.checkpoint_steps=0", "training.phases=[{kind='notes', epochs=200}]")
    process = submit(head, "train", root, *SMALL, *longer)
    seen = wait_for_line(process, "workers begin after step 0")
    job_id = seen.split("job ", 1)[1].split(":", 1)[0]
    training = Folder(str(root / "training"))
    deadline = time.monotonic() + 60
    while not training.exists("metrics.jsonl") or training.read_bytes("metrics.jsonl").count(b"\n") < 4:
        assert time.monotonic() < deadline, "the training does not begin"
        time.sleep(0.2)
    stop = [BIN / "ray", "job", "stop", "--address", head.address, job_id]
    subprocess.run(stop, env=head.environment, check=True, capture_output=True, timeout=100)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode != 0, seen + rest
    (saved,) = committed_steps(training)
    assert saved >= 3
    again = submit(head, "train", root, *SMALL, *longer)
    seen = wait_for_line(again, "workers begin after step")
    again.kill()
    assert f"begin after step {saved}" in seen
    job_id = seen.split("job ", 1)[1].split(":", 1)[0]
    stop[-1] = job_id
    subprocess.run(stop, env=head.environment, check=True, capture_output=True, timeout=100)
