"""The lease on a bucket: real processes, and the S3 protocol over HTTP."""

import json
import os
import signal
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import NoReturn

import pytest
from bucket_door import door_to
from lease_processes import HEARTBEAT_SECONDS, STALE_SECONDS, Process
from local_buckets import local_bucket

from asclepius_ray import fence
from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import ConfigError, LeaseError
from asclepius_ray.lease import Timing, acquire, forget_the_dead, is_live, read_holder
from asclepius_ray.lease.bucket import BucketLease
from asclepius_ray.lease.holder import holder_of

pytestmark = pytest.mark.whole


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with local_bucket("leases") as uri:
        yield uri


def test_of_many_that_want_the_root_again_and_again_never_two_hold_it(bucket: str) -> None:
    with door_to(bucket.format("many"), latency_seconds=0.02) as door:
        root = Folder(door.uri)
        processes = [Process("turns", root, 240, heartbeat_seconds=10) for _ in range(8)]
        for process in processes:
            process.wait_for("ready")
        give_up = time.monotonic() + 240
        while sum(len(process.said("left")) for process in processes) < 6 and time.monotonic() < give_up:
            time.sleep(0.1)
        for process in processes:
            process.process.send_signal(signal.SIGUSR1)
        ends = [process.end() for process in processes]
    assert ends == [0] * 8, [process.last_words() for process in processes]
    root = Folder(bucket.format("many"))
    spans = []
    for process in processes:
        held, left = process.said("held"), process.said("left")
        spans += [(began["at"], ended["at"]) for began, ended in zip(held, left, strict=True)]
    spans.sort()
    assert len(spans) >= 6
    overlaps = [pair for pair in pairwise(spans) if pair[1][0] < pair[0][1]]
    assert overlaps == []
    holder = read_holder(root)
    assert holder is not None
    assert holder.exit_code == 0
    assert root.child(".lease").names() == []


def test_of_two_that_follow_one_that_is_killed_one_takes_over_and_the_other_follows_it(bucket: str) -> None:
    root = Folder(bucket.format("killed"))
    first = Process("work", root, 60, "first")
    first.wait_for("wrote")
    others = [Process("work", root, 2, name) for name in ("second", "third")]
    for other in others:
        other.wait_for("follows")
    first.stop()
    assert [other.end() for other in others] == [0, 0]
    (heir,) = [other for other in others if other.said("held")]
    (follower,) = [other for other in others if not other.said("held")]
    assert follower.said("followed")[0]["code"] == 0
    assert any(str(heir.process.pid) in found["line"] for found in follower.said("follows"))


@pytest.mark.parametrize(
    "heartbeat_seconds", [HEARTBEAT_SECONDS, 30.0], ids=["it sees that time passed", "its clock stood still"]
)
def test_one_that_was_stopped_and_taken_over_ends_without_another_write(
    bucket: str, heartbeat_seconds: float
) -> None:
    root = Folder(bucket.format(f"stopped-{heartbeat_seconds}"))
    # With long heartbeats it believes for long that nobody can have come: its next commit has to look.
    first = Process("work", root, 60, "first", heartbeat_seconds)
    first.wait_for("wrote", 3)
    second = Process("work", root, 2, "second")
    second.wait_for("follows")
    first.pause()
    shown_seconds_ago = time.time() - last_beat_unix(root, first.process.pid)
    shown_at = time.monotonic() - shown_seconds_ago
    try:
        assert second.end() == 0
        assert second.said("held")[0]["at"] - shown_at >= STALE_SECONDS - 0.1
        before, written = names_of_work(root), root.read_bytes("work/manifest.json")
    finally:
        os.kill(first.process.pid, signal.SIGCONT)
    assert first.end() == LeaseError.exit_code
    assert first.process.stderr is not None
    assert "was taken over" in first.process.stderr.read()
    assert (names_of_work(root), root.read_bytes("work/manifest.json")) == (before, written)
    assert written.startswith(b"second")


def last_beat_unix(root: Folder, pid: int) -> float:
    """When the newest sign of life of a process was about to be written: nobody can have seen it before."""
    marks = root.child(".lease")
    beats = [holder_of(marks.read_bytes(name)) for name in marks.names() if ".beat." in name]
    return max(beat.heartbeat_unix for beat in beats if beat.pid == pid)


def names_of_work(root: Folder) -> list[str]:
    """All but the queue's marks: a sign of life may have been on its way when the process was stopped."""
    return [name for name in root.names() if not name.startswith(".lease/")]


def test_a_bucket_that_is_away_for_all_costs_nobody_the_root(bucket: str) -> None:
    with door_to(bucket.format("away")) as door:
        root = Folder(door.uri)
        first = Process("work", root, 150, "first")
        first.wait_for("wrote", 3)
        second = Process("work", root, 60, "second")
        second.wait_for("follows")
        door.is_shut = True
        time.sleep(2 * STALE_SECONDS)
        num_wrote = len(first.said("wrote"))
        door.is_shut = False
        first.wait_for("wrote", num_wrote + 3)
        os.kill(first.process.pid, signal.SIGUSR1)
        assert first.end() == 0
        assert second.end() == 0
    assert second.said("held") == []
    assert second.said("followed")[0]["code"] == 0


def test_a_live_holder_is_refused_by_name_and_a_result_is_left(bucket: str) -> None:
    root = Folder(bucket.format("refused"))
    first = Process("work", root, 60, "first")
    first.wait_for("wrote")
    try:
        holder = read_holder(root)
        assert holder is not None
        assert is_live(root)
        with pytest.raises(LeaseError, match=f"process {first.process.pid} on "):
            acquire(root, "purge")
        assert len({name.partition(".")[0] for name in root.child(".lease").names()}) == 1
    finally:
        first.stop()
    lease = acquire(root, "purge")
    assert fence._confirm is not None
    forget_the_dead(root)
    lease.release(0)
    assert fence._confirm is None
    assert root.child(".lease").names() == []
    again = read_holder(root)
    assert again is not None
    assert again.generation > holder.generation


def test_a_root_of_a_version_without_a_queue_is_honoured_and_then_taken_over(bucket: str) -> None:
    root = Folder(bucket.format("old"))
    acquire(root, "train:1").release(0)
    values = json.loads(root.read_bytes("lease"))
    del values["generation"]
    values |= {"exit_code": None, "host": "another-host", "heartbeat_unix": time.time()}
    root.write_bytes("lease", json.dumps(values).encode())
    with pytest.raises(LeaseError, match="another-host"):
        acquire(root, "train:1")
    values["heartbeat_unix"] -= 100
    root.write_bytes("lease", json.dumps(values).encode())
    acquire(root, "train:1", Timing(heartbeat=1.0, stale=2.0)).release(0)


def test_what_another_has_left_unreadable_costs_a_holder_nothing(bucket: str) -> None:
    root = Folder(bucket.format("strange"))
    lease = acquire(root, "train:1", Timing(heartbeat=0.1))
    marks = root.child(".lease")
    for token, content in (("damaged", b"{"), ("list", b"[]"), ("typed", b'{"token": 1}')):
        marks.write_bytes(f"{token}.number.0000000099", content)
    holder = read_holder(root)
    assert holder is not None
    newer = json.loads(holder.to_bytes()) | {"token": "newer", "of_a_newer_version": 1}
    marks.write_bytes("newer.number.0000000100", json.dumps(newer).encode())
    time.sleep(0.5)
    fence.confirm_root()
    heard = read_holder(root)
    assert heard is not None
    assert heard.heartbeat_unix > holder.heartbeat_unix
    lease.release(6)
    left = read_holder(root)
    assert left is not None
    assert left.exit_code == 6
    root.write_bytes("lease", json.dumps(newer).encode())
    assert str(read_holder(root)).startswith(f"process {os.getpid()} on ")


def test_time_in_which_nobody_looked_is_not_time_without_the_bucket(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(reason: str) -> NoReturn:
        raise SystemExit(reason)

    def fail() -> bool:
        raise ConfigError("cannot be reached")

    monkeypatch.setattr("asclepius_ray.lease.bucket.end_now", end)
    lease = acquire(Folder(bucket.format("asleep")), "train:1", Timing(heartbeat=60, cut_off=0.3))
    assert isinstance(lease, BucketLease)
    for _ in range(2):
        # As after a night with the lid closed: the first look fails, the network is not there yet.
        time.sleep(0.5)
        assert not lease._try(fail)
        assert lease._try(lambda: True)
    assert not lease._try(fail)
    time.sleep(0.4)
    with pytest.raises(SystemExit, match="cannot be reached for"):
        lease._try(fail)
    lease.release(0)
