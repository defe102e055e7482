import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from asclepius_ray import fence, lease
from asclepius_ray.artifacts import Folder, write_manifest
from asclepius_ray.errors import LeaseError
from asclepius_ray.lease.local import acquire_folder
from asclepius_ray.lease.watch import HolderWatch

SHORT = lease.Timing(heartbeat=0.5, valid=1.5, stale=2.0, look=0.1)
HOLD = """
import sys, time
from asclepius_ray.artifacts import Folder
from asclepius_ray.lease import acquire
held = acquire(Folder(sys.argv[1]), "pipeline:1")
print("held", flush=True)
time.sleep(float(sys.argv[2]))
held.release(int(sys.argv[3]))
"""


def hold_elsewhere(root: Path, seconds: float, exit_code: int = 0) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root), str(seconds), str(exit_code)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_live_holder_is_refused_by_name(tmp_path: Path) -> None:
    process = hold_elsewhere(tmp_path, 60)
    try:
        with pytest.raises(LeaseError, match=f"process {process.pid} on "):
            lease.acquire(Folder(str(tmp_path)), "pipeline:2")
    finally:
        process.kill()
        process.wait()


def test_a_killed_holder_is_taken_over_at_once(tmp_path: Path) -> None:
    process = hold_elsewhere(tmp_path, 60)
    process.send_signal(signal.SIGKILL)
    process.wait()
    started = time.monotonic()
    lease.acquire(Folder(str(tmp_path)), "pipeline:2").release(0)
    assert time.monotonic() - started < 2


def test_a_clock_that_is_set_makes_no_live_holder_look_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    booted = psutil.boot_time()
    process = hold_elsewhere(tmp_path, 60)
    try:
        # What the kernel gives as its start moves with the clock, and with it the start of every process.
        monkeypatch.setattr("psutil._pslinux.boot_time", lambda: booted + 30)
        assert psutil.Process(process.pid).create_time() > time.time() + 10
        with pytest.raises(LeaseError, match=f"process {process.pid} on "):
            lease.acquire(Folder(str(tmp_path)), "pipeline:2")
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("by", ["ticks", "an earlier version's seconds"])
def test_a_process_that_reuses_the_number_of_a_dead_holder_is_not_the_holder(tmp_path: Path, by: str) -> None:
    folder = Folder(str(tmp_path))
    lease.acquire(folder, "x").release(0)
    holder = json.loads(folder.read_bytes("lease")) | {"exit_code": None}
    assert holder["pid"] == os.getpid()
    if by == "ticks":
        holder["process_started_ticks"] -= 1
    else:
        del holder["process_started_ticks"]
        folder.write_bytes("lease", json.dumps(holder).encode())
        with pytest.raises(LeaseError, match="in use"):
            lease.acquire(folder, "y")
        holder["process_started_unix"] -= 2
    folder.write_bytes("lease", json.dumps(holder).encode())
    lease.acquire(folder, "y").release(0)


def test_of_many_that_start_at_once_exactly_one_holds(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path), "4", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]
    ends = [process.communicate() for process in processes]
    held = [out for out, _ in ends if out == "held\n"]
    refused = [error for _, error in ends if "LeaseError" in error]
    assert len(held) == 1
    assert len(refused) == 5


def foreign_lease(folder: Folder, heartbeat_age_seconds: float) -> None:
    lease.acquire(folder, "pipeline:1").release(0)
    holder = json.loads(folder.read_bytes("lease")) | {
        "exit_code": None,
        "host": "another-host",
        "heartbeat_unix": time.time() - heartbeat_age_seconds,
    }
    folder.write_bytes("lease", json.dumps(holder).encode())


def test_a_holder_on_another_host_is_believed_while_its_heartbeat_is_fresh(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    foreign_lease(folder, heartbeat_age_seconds=30)
    with pytest.raises(LeaseError, match="another-host"):
        lease.acquire(folder, "pipeline:1")


def test_a_holder_of_the_same_host_name_on_another_machine_is_believed_too(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    foreign_lease(folder, heartbeat_age_seconds=30)
    holder = json.loads(folder.read_bytes("lease")) | {"host": socket.gethostname(), "machine_id": "another"}
    folder.write_bytes("lease", json.dumps(holder).encode())
    with pytest.raises(LeaseError, match="in use"):
        lease.acquire(folder, "pipeline:1")


def test_a_silent_holder_on_another_host_is_taken_over_once_it_was_watched(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    # By its clock, or by ours, it was heard of long ago: the clocks may be as far apart.
    foreign_lease(folder, heartbeat_age_seconds=3600)
    started = time.monotonic()
    lease.acquire(folder, "pipeline:1", SHORT).release(0)
    assert time.monotonic() - started >= SHORT.stale
    holder = lease.read_holder(folder)
    assert holder is not None
    assert holder.host != "another-host"


def test_a_holder_that_beats_just_before_it_is_taken_over_keeps_its_root(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    foreign_lease(folder, heartbeat_age_seconds=3600)

    class BeatsBehindTheLastLook(HolderWatch):
        def judge(self) -> tuple[lease.Holder | None, bool]:
            judged = super().judge()
            foreign_lease_beats(folder)
            return judged

    with pytest.raises(LeaseError, match="silent until now"):
        acquire_folder(folder, "pipeline:1", SHORT, BeatsBehindTheLastLook(folder, SHORT))


def foreign_lease_beats(folder: Folder) -> None:
    holder = json.loads(folder.read_bytes("lease"))
    folder.write_bytes("lease", json.dumps(holder | {"heartbeat_unix": time.time()}).encode())


def test_a_holder_commits_nothing_where_its_folder_cannot_say_whose_root_it_is(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    held = lease.acquire(folder, "pipeline:1")
    fence.confirm_root()
    (tmp_path / ".lease-lock").unlink()
    (tmp_path / ".lease-lock").mkdir()
    # A file system that fails is what the write itself would have met.
    with pytest.raises(OSError, match="lease-lock"):
        write_manifest(folder.child("dataset"), "dataset", {}, {})
    assert not (tmp_path / "dataset").exists()
    (tmp_path / ".lease-lock").rmdir()
    held.release(0)
    assert fence._confirm is None


def follow(root: Path, purpose: str, say: Callable[[str], None]) -> int | None:
    folder, timing = Folder(str(root)), lease.Timing()
    return lease.follow_in_folder(folder, purpose, say, timing, HolderWatch(folder, timing))


def test_a_follower_ends_with_the_result_of_the_run_it_followed(tmp_path: Path) -> None:
    process = hold_elsewhere(tmp_path, 3, exit_code=7)
    lines: list[str] = []
    assert follow(tmp_path, "pipeline:1", lines.append) == 7
    assert str(process.pid) in lines[0]
    assert process.wait() == 0


def test_a_follower_takes_over_from_a_run_that_died(tmp_path: Path) -> None:
    process = hold_elsewhere(tmp_path, 60)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert follow(tmp_path, "pipeline:1", lambda line: None) is None


def test_of_twins_that_start_in_one_moment_one_works_and_the_others_end_with_its_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, num_twins = Folder(str(tmp_path)), 4
    process = hold_elsewhere(tmp_path, 60)
    process.kill()
    process.wait()
    together = threading.Barrier(num_twins)
    follow_alone = lease.follow_in_folder

    def follow_together(*asked: Any) -> int | None:
        found = follow_alone(*asked)
        # At first all of them look before any of them takes.
        with suppress(threading.BrokenBarrierError):
            together.wait(timeout=2)
        return found

    monkeypatch.setattr(lease, "follow_in_folder", follow_together)

    def work() -> int:
        taken = lease.join(folder, "pipeline:1", lambda line: None)
        if isinstance(taken, int):
            return taken
        time.sleep(1)
        taken.release(5)
        return -1

    with ThreadPoolExecutor(num_twins) as pool:
        ended = [pool.submit(work) for _ in range(num_twins)]
        assert sorted(each.result(timeout=30) for each in ended) == [-1, 5, 5, 5]


def test_another_job_is_not_followed(tmp_path: Path) -> None:
    process = hold_elsewhere(tmp_path, 60)
    try:
        assert follow(tmp_path, "train:1", lambda line: None) is None
    finally:
        process.kill()
        process.wait()


def test_an_unreadable_lease_is_never_taken_for_a_free_root(tmp_path: Path) -> None:
    (tmp_path / "lease").write_bytes(b"{")
    with pytest.raises(LeaseError, match="not readable"):
        lease.acquire(Folder(str(tmp_path)), "pipeline:1")
