"""The lease on a folder that hosts share: real processes, some of which pass for ones of another."""

import fcntl
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from lease_processes import STALE_SECONDS, Process

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import LeaseError
from asclepius_ray.lease import Timing, acquire

pytestmark = pytest.mark.whole

TIMING = Timing(heartbeat=1.0, valid=6.0, stale=10.0, look=0.2)
DELAY_SECONDS = 3.0
HOUR_SECONDS = 3600.0


def test_one_that_was_stopped_and_taken_over_ends_without_another_write(tmp_path: Path) -> None:
    root, artefact = Folder(str(tmp_path)), tmp_path / "work" / "manifest.json"
    # With such heartbeats only the look before its next commit can tell it.
    first = Process("work", root, 60, "first", heartbeat_seconds=30)
    first.wait_for("wrote", 3)
    first.pause()
    try:
        second = Process("work", root, 2, "second", elsewhere=("another-host", 0.0))
        assert second.end() == 0
        written = artefact.read_bytes()
    finally:
        os.kill(first.process.pid, signal.SIGCONT)
    assert first.end() == LeaseError.exit_code
    assert first.process.stderr is not None
    assert "was taken over" in first.process.stderr.read()
    assert artefact.read_bytes() == written
    assert written.startswith(b"second")


def test_a_holder_whose_clock_is_an_hour_off_keeps_its_root_while_it_beats_and_no_longer(
    tmp_path: Path,
) -> None:
    root = Folder(str(tmp_path))
    holder = Process("work", root, 120, elsewhere=("another-host", HOUR_SECONDS))
    holder.wait_for("wrote")
    try:
        delay_beats(tmp_path, DELAY_SECONDS)
        with pytest.raises(LeaseError, match="another-host"):
            acquire(root, "purge", TIMING)
        holder.wait_for("wrote", len(holder.said("wrote")) + 2)
    finally:
        holder.stop()
    stopped_at = time.monotonic()
    acquire(root, "purge", TIMING).release(0)
    assert time.monotonic() - stopped_at >= TIMING.stale


def delay_beats(root: Path, seconds: float) -> None:
    """From now on for so long nobody gets the lock under which signs of life are written."""
    descriptor = os.open(root / ".lease-lock", os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    threading.Timer(seconds, os.close, [descriptor]).start()


def test_a_follower_takes_over_when_it_has_seen_no_sign_of_life_for_as_long_as_is_borne(
    tmp_path: Path,
) -> None:
    root = Folder(str(tmp_path))
    first = Process("work", root, 120, "first", elsewhere=("another-host", -HOUR_SECONDS))
    first.wait_for("wrote")
    second = Process("work", root, 1, "second")
    second.wait_for("follows")
    first.stop()
    stopped_at = time.monotonic()
    assert second.end() == 0
    # Not one watch for the follower and another one for the root.
    assert second.said("held")[0]["at"] - stopped_at < 2 * STALE_SECONDS - 1
