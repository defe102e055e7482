"""Workers killed at any moment, on disks and in buckets: the training ends as if nothing had been."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from local_heads import stalling_port
from moto.server import ThreadedMotoServer
from training_runs import (
    CHECKPOINT_STEPS,
    Result,
    Watch,
    copy_prepared,
    prepare,
    result_of,
    run,
    settings,
    training_workers,
)

from asclepius_ray.artifacts import Folder, is_finished
from asclepius_ray.errors import TrainingError
from asclepius_ray.training.checkpoints.catalog import committed_steps, step_folder

STEP_SECONDS = 0.15


@pytest.fixture(scope="module")
def prepared(ray_cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    root = Folder(str(tmp_path_factory.mktemp("prepared")))
    prepare(root)
    return root


@pytest.fixture(scope="module")
def unbroken(prepared: Folder, tmp_path_factory: pytest.TempPathFactory) -> Result:
    root = Folder(str(tmp_path_factory.mktemp("unbroken")))
    copy_prepared(prepared, root)
    watch = Watch()
    run(root, settings(), watch)
    result = result_of(root)
    assert watch.executed == list(range(1, len(result.consumed) + 1))
    assert len(result.consumed) > 40
    assert len({rows for _, rows in result.consumed}) > 30
    return result


class Kills:
    """kill -9 of a random worker shortly after each of these steps; then Ctrl-C, if there is one to come."""

    def __init__(self, root: Folder, steps: list[int], stop_at: int | None, chance: random.Random) -> None:
        self.root, self.steps, self.stop_at, self.chance = root, list(steps), stop_at, chance
        self.kept: list[int] = []
        """The newest checkpoint at each kill."""

    def __call__(self, watch: Watch) -> None:
        if self.steps and watch.step >= self.steps[0] and len(watch.starts) == len(self.kept) + 1:
            del self.steps[0]
            time.sleep(self.chance.uniform(0, 0.3))
            self.kept.append(max(committed_steps(self.root.child("training")), default=0))
            self.chance.choice(training_workers()).send_signal(signal.SIGKILL)
        elif not self.steps and self.stop_at is not None and watch.step >= self.stop_at:
            self.stop_at = None
            raise KeyboardInterrupt


@pytest.mark.long
def test_ten_kills_on_two_then_one_then_two_workers_change_no_bit(
    prepared: Folder, unbroken: Result, tmp_path: Path
) -> None:
    root = Folder(str(tmp_path / "root"))
    copy_prepared(prepared, root)
    chance = random.Random(7)
    last = len(unbroken.consumed)
    moments = sorted(chance.sample(range(2, last - 2), 10))
    parts = [(2, moments[:4], moments[3] + 2), (1, moments[4:7], moments[6] + 2), (2, moments[7:], None)]
    before = 0
    for workers, steps, stop_at in parts:
        kills = Kills(root, steps, stop_at, chance)
        watch = Watch(act=kills)
        try:
            run(root, settings(workers=workers), watch, STEP_SECONDS)
        except KeyboardInterrupt:
            assert stop_at is not None
        assert kills.steps == [], "a kill was not carried out"
        # Where each group began: the first where the run before had been stopped, the others no older than
        # what was whole when they were killed.
        begun = [start["step"] for start in watch.starts]
        assert begun[0] == before
        assert len(begun) == len(kills.kept) + 1
        assert all(step >= kept for step, kept in zip(begun[1:], kills.kept, strict=True)), (
            begun,
            kills.kept,
        )
        assert all(start["workers"] == workers for start in watch.starts)
        sys.stdout.write(f"{workers} workers: begun after {begun}, whole when killed {kills.kept}\n")
        # Ctrl-C saves at the step that is under way: nothing is lost.
        before = watch.step
        if stop_at is not None:
            assert committed_steps(root.child("training"))[0] == before
    result = result_of(root)
    assert result.consumed == unbroken.consumed
    assert result.losses == unbroken.losses
    assert result.state == unbroken.state
    assert result.model == unbroken.model


@pytest.mark.long
def test_a_run_that_goes_on_with_other_micro_batches_reads_the_same_rows_and_learns_the_same(
    prepared: Folder, unbroken: Result, tmp_path: Path
) -> None:
    root = Folder(str(tmp_path / "root"))
    copy_prepared(prepared, root)
    with pytest.raises(KeyboardInterrupt):
        run(root, settings(), Watch(act=Kills(root, [], 20, random.Random(1))), STEP_SECONDS)
    reached = committed_steps(root.child("training"))[0]
    assert 20 <= reached < len(unbroken.consumed)
    watch = Watch()
    run(root, settings(workers=1, micro_batch=1), watch)
    assert watch.starts == [{"workers": 1, "step": reached}]
    result = result_of(root)
    assert result.consumed == unbroken.consumed
    assert result.losses == pytest.approx(unbroken.losses, abs=1e-3)


@pytest.fixture
def bucket() -> Iterator[str]:
    """The address of a server that speaks S3, with an empty bucket."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    ).create_bucket(Bucket="runs")
    yield endpoint
    server.stop()


@pytest.mark.long
def test_a_kill_during_an_upload_costs_that_checkpoint_alone(
    prepared: Folder, unbroken: Result, bucket: str
) -> None:
    late = 2 * CHECKPOINT_STEPS
    upload = f"PUT /runs/killed/training/step-{late:07d}/rank-0001".encode()
    with stalling_port(bucket, upload) as port:
        root = Folder(f"s3://testing:testing@runs/killed?region=us-east-1&endpoint_override={port.address}")
        copy_prepared(prepared, root)

        killed: list[int] = []

        def kill_when_stalled(watch: Watch) -> None:
            if port.stalled.is_set() and not killed:
                if not step_folder(root.child("training"), late).names():
                    # Rank 0's part is not there yet.
                    return
                assert committed_steps(root.child("training")) == [CHECKPOINT_STEPS]
                worker = training_workers()[0]
                killed.append(worker.pid)
                worker.send_signal(signal.SIGKILL)
                port.release()

        watch = Watch(act=kill_when_stalled)
        run(root, settings(), watch)
        assert [start["step"] for start in watch.starts] == [0, CHECKPOINT_STEPS]
        # Training went on while the upload hung, as far as the next checkpoint.
        repeated = sorted({step for step in watch.executed if watch.executed.count(step) > 1})
        assert repeated == list(range(CHECKPOINT_STEPS + 1, repeated[-1] + 1))
        assert late <= repeated[-1] <= late + CHECKPOINT_STEPS
        result = result_of(root)
    assert result.consumed == unbroken.consumed
    assert result.state == unbroken.state


@pytest.mark.long
def test_a_disk_that_fills_during_a_checkpoint_is_named_and_the_run_goes_on_when_there_is_room(
    prepared: Folder, unbroken: Result, tmp_path: Path
) -> None:
    place = tmp_path / "small"
    place.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "t", place]).returncode:
        pytest.skip("a small disk can be mounted by the superuser alone")
    try:
        root = Folder(str(place / "root"))
        copy_prepared(prepared, root)

        def shrink(watch: Watch) -> None:
            """Leaves room for the metrics, and for no other checkpoint."""
            if watch.reported:
                disk = os.statvfs(place)
                used = (disk.f_blocks - disk.f_bfree) * disk.f_frsize
                subprocess.run(["mount", "-o", f"remount,size={used + 200_000}", place], check=False)

        watch = Watch(act=shrink)
        with pytest.raises(TrainingError, match=r"No space left on device.*goes on from the newest"):
            run(root, settings(), watch, STEP_SECONDS)
        assert len(watch.starts) == 1, "what cannot help was tried again"
        kept = committed_steps(root.child("training"))
        assert kept[0] >= watch.reported[-1]
        assert not is_finished(root.child("model"))
        subprocess.run(["mount", "-o", "remount,size=200m", place], check=True)
        again = Watch()
        run(root, settings(), again)
        assert again.starts[0]["step"] == kept[0]
        result = result_of(root)
        assert result.consumed == unbroken.consumed
        assert result.state == unbroken.state
    finally:
        subprocess.run(["umount", place], check=True)
