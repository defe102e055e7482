"""A run that is stopped, killed or starved says so, leaves nothing half-made, and goes on when repeated."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from reciting_model import save_reciting_model
from submitted_jobs import wait_for_line

from asclepius_ray.artifacts import Folder, is_finished, read_manifest
from asclepius_ray.chat.offline.faults import Faults
from asclepius_ray.chat.offline.server import OfflineTeacher
from asclepius_ray.lease import read_holder
from asclepius_ray.serving.proxy.environment import free_port
from asclepius_ray.training.checkpoints.catalog import committed_steps

PROJECT = Path(__file__).resolve().parents[2]
ASCLEPIUS = Path(sys.executable).parent / "asclepius"
SMALL = (
    "input.limit=16",
    "training.phases=[{kind='notes', epochs=1, learning_rate=2e-3}, {kind='instructions', epochs=1}]",
    "training.global_batch=4",
    "evaluation.limit=2",
)


@pytest.fixture(scope="module")
def slow_teacher() -> Iterator[tuple[str, ...]]:
    """A teacher that needs 0.4 s a reply: 16 rows of three steps take long enough to be hit in the middle."""
    with OfflineTeacher(faults=Faults(latency_seconds=0.4)) as teacher:
        yield (
            f"teacher.base_url={teacher.base_url}",
            "teacher.model=offline-rules",
            "teacher.max_in_flight=2",
        )


def start(root: Path, job: str, *overrides: str, **variables: str) -> subprocess.Popen[str]:
    sets = [part for override in (f"root={root}", *SMALL, *overrides) for part in ("--set", override)]
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    return subprocess.Popen(
        [ASCLEPIUS, "run", job, "jobs/runs/quickstart.toml", *sets],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment | variables,
        start_new_session=True,
    )


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "the run did not get as far in time"
        time.sleep(0.2)


def end_of(process: subprocess.Popen[str], seconds: float = 400) -> tuple[int, str]:
    output, _ = process.communicate(timeout=seconds)
    assert "Traceback" not in output, output
    return process.returncode, output


def dataset_bytes(root: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted((root / "dataset").glob("*.parquet")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def is_held(root: Path) -> bool:
    holder = read_holder(Folder(str(root)))
    return holder is not None and holder.exit_code is None


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_stopped_synthesis_says_how_to_go_on_and_leaves_nothing_half_made(
    name: str, tmp_path: Path, slow_teacher: tuple[str, ...]
) -> None:
    root = tmp_path / "root"
    process = start(root, "synthesize", *slow_teacher)
    wait_for_line(process, "synthesize")
    time.sleep(3)
    if name == "SIGINT":
        # A terminal sends it to all that the command started.
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGTERM)
    code, output = end_of(process, 40)
    assert code == 130, output
    assert "run the same command again" in output
    assert not is_finished(Folder(str(root / "dataset")))
    assert not is_held(root)


@pytest.mark.long
def test_a_killed_run_is_repeated_to_the_same_dataset_byte_for_byte(
    tmp_path: Path, slow_teacher: tuple[str, ...]
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert end_of(start(whole, "synthesize", *slow_teacher))[0] == 0
    process = start(broken, "synthesize", *slow_teacher)
    wait_for_line(process, "synthesize")
    time.sleep(4)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    assert not is_finished(Folder(str(broken / "dataset")))
    assert is_held(broken)
    assert end_of(start(broken, "synthesize", *slow_teacher))[0] == 0
    assert dataset_bytes(broken) == dataset_bytes(whole)
    _, alive = psutil.wait_procs(children, timeout=60)
    assert alive == [], "the killed run left processes behind"


@pytest.mark.long
def test_a_training_that_is_stopped_and_then_killed_goes_on_from_where_it_was(tmp_path: Path) -> None:
    root = tmp_path / "root"
    longer = "training.phases=[{kind='notes', epochs=25, learning_rate=1e-3}]"
    assert end_of(start(root, "synthesize"))[0] == 0
    # No checkpoint but the one that the signal asks for.
    process = start(root, "train", longer, "training.checkpoint_steps=0")
    metrics, training = root / "training" / "metrics.jsonl", Folder(str(root / "training"))
    wait_until(lambda: metrics.exists() and len(metrics.read_text().splitlines()) > 6, process)
    process.send_signal(signal.SIGTERM)
    code, output = end_of(process, 60)
    assert code == 130, output
    before = step_lines(metrics)
    assert committed_steps(training) == [len(before)]
    assert not is_finished(Folder(str(root / "model")))

    process = start(root, "train", longer, "training.checkpoint_steps=3")
    wait_until(lambda: committed_steps(training)[0] > len(before), process)
    workers = [one for one in psutil.Process(process.pid).children(recursive=True) if is_training(one)]
    process.kill()
    process.wait()
    assert len(workers) == 2
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert alive == [], "the killed run left workers behind, which go on training"
    kept = committed_steps(training)[0]

    code, output = end_of(start(root, "train", longer), 200)
    assert code == 0, output
    assert f"2 workers begin after step {kept}" in output
    assert is_finished(Folder(str(root / "model")))
    after = step_lines(metrics)
    assert after[: len(before)] == before
    assert [json.loads(line)["step"] for line in after] == list(range(1, len(after) + 1))
    assert len(after) > kept > len(before)


@pytest.mark.long
def test_a_signal_to_a_served_jobs_whole_group_leaves_neither_a_process_nor_the_port(tmp_path: Path) -> None:
    # Ray is among those it reaches, and can end nothing in order any more.
    save_reciting_model(tmp_path / "model", [" so", "."], 512)
    port = free_port("127.0.0.1")
    settings = (f"serving.model={tmp_path / 'model'}", f"serving.port={port}")
    process = start(tmp_path / "root", "serve", *settings, ASCLEPIUS_API_KEY="drill-key-0123456789abcdef0123")
    wait_for_line(process, "is served at")
    left = psutil.Process(process.pid).children(recursive=True)
    assert any("haproxy" in each.name() for each in left)
    os.killpg(process.pid, signal.SIGTERM)
    code, output = end_of(process, seconds=40)
    assert code != 0
    assert "what is finished is kept" in output.lower()
    assert psutil.wait_procs(left, timeout=60)[1] == []
    with socket.socket() as probe:
        # Nobody listens there; connections that have ended may be remembered for a minute more.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))


def step_lines(metrics: Path) -> list[str]:
    return [line for line in metrics.read_text().splitlines() if '"loss"' in line]


def is_training(process: psutil.Process) -> bool:
    return any("RayTrainWorker" in part for part in process.cmdline())


@pytest.mark.long
def test_a_full_disk_is_named_and_the_run_goes_on_when_there_is_room(tmp_path: Path) -> None:
    root = tmp_path / "small_disk"
    root.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "t", root]).returncode:
        pytest.skip("a small disk can be mounted by the superuser alone")
    try:
        code, output = end_of(start(root / "run", "pipeline"), 300)
        assert code == 1, output
        assert "No space left" in output
        assert not is_finished(Folder(str(root / "run" / "model")))
        subprocess.run(["mount", "-o", "remount,size=200m", root], check=True)
        code, output = end_of(start(root / "run", "pipeline"), 300)
        assert code == 0, output
    finally:
        subprocess.run(["umount", root], check=True)


def test_of_two_runs_at_once_the_second_is_refused_and_the_first_is_not_harmed(
    tmp_path: Path, slow_teacher: tuple[str, ...]
) -> None:
    root = tmp_path / "root"
    first = start(root, "synthesize", *slow_teacher)
    wait_for_line(first, "synthesize")
    code, output = end_of(start(root, "synthesize", *slow_teacher), 30)
    assert code == 4, output
    assert str(first.pid) in output
    assert end_of(first)[0] == 0
    assert read_manifest(Folder(str(root / "dataset"))).counts["input"] == 16


def test_a_run_whose_root_was_taken_over_stops(tmp_path: Path, slow_teacher: tuple[str, ...]) -> None:
    root = tmp_path / "root"
    process = start(root, "synthesize", *slow_teacher, "input.limit=48")
    # By then it has emptied the folders that it is going to write.
    wait_for_line(process, "synthesize 0/48")
    lease = Folder(str(root))
    holder = lease.read_bytes("lease").decode()
    held = read_holder(lease)
    assert held is not None
    lease.write_bytes("lease", holder.replace(held.token, "another").encode())
    of_the_new_holder = root / "dataset" / "train-00007.parquet"
    of_the_new_holder.parent.mkdir(exist_ok=True)
    of_the_new_holder.write_bytes(b"rows")
    code, output = end_of(process, 40)
    assert code == 4, output
    assert "taken over" in output
    assert of_the_new_holder.read_bytes() == b"rows"
