"""What is damaged, partial or cannot be written is never trained from in silence."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import boto3
import pytest
from checkpoint_ranks import Seen, Task, Variant, run_ranks
from moto.server import ThreadedMotoServer

from asclepius_ray.artifacts import Folder
from asclepius_ray.training.checkpoints.catalog import COMMIT_NAME, committed_steps, read_commit

pytestmark = pytest.mark.whole

VARIANT = Variant(1)
OLDER, NEWER = 3, 5


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The start of the addresses of a bucket, and the end of them."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        os.environ[name] = "testing"
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket="runs")
    yield f"?region=us-east-1&endpoint_override={endpoint}"
    server.stop()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Room for one checkpoint, and for no part of a second: both ranks find it full."""
    place = tmp_path_factory.mktemp("small_disk")
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=760k", "t", place]).returncode
    ):
        pytest.skip("a small disk can be mounted by the superuser alone")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.fixture(scope="module")
def written(folder: Path, bucket: str, small_disk: Path) -> dict[str, Seen]:
    """Two workers: two checkpoints each, in a folder, in a bucket and on a disk that gets full."""
    tasks = []
    for name, place in (
        ("local", str(folder / "local")),
        ("bucket", f"s3://runs/training{bucket}"),
        ("full", str(small_disk / "training")),
        ("nowhere", f"s3://no-such-bucket/training{bucket}"),
    ):
        tasks.append(Task(f"{name}-older", VARIANT, steps=OLDER, save=place))
        if name != "nowhere":
            tasks.append(Task(f"{name}-newer", VARIANT, load=place, steps=NEWER - OLDER, save=place))
    return run_ranks(2, tasks, folder)


def damage(place: Path, what: str) -> None:
    """Damages the newer of two checkpoints, in what rank 1 has written where that can be chosen."""
    step = place / f"step-{NEWER:07d}"
    (file,) = step.glob("rank-0001-*.safetensors")
    content = file.read_bytes()
    if what == "cut":
        file.write_bytes(content[:-100])
    elif what == "one bit":
        middle = len(content) // 2
        file.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    elif what == "missing file":
        file.unlink()
    elif what == "no commit":
        (step / COMMIT_NAME).unlink()
    elif what == "empty commit":
        (step / COMMIT_NAME).write_bytes(b"")
    elif what == "other format":
        commit = (step / COMMIT_NAME).read_bytes()
        (step / COMMIT_NAME).write_bytes(commit.replace(b'"format_version": 1', b'"format_version": 9'))
    elif what == "no state":
        next(step.glob("state-*.json")).unlink()


DAMAGES = {
    "cut": "is not as it was written",
    "one bit": "is not as it was written",
    "missing file": "is missing",
    "no commit": "",
    "empty commit": "COMMIT is not readable",
    "other format": "format version 9",
    "no state": "is missing",
}


@pytest.fixture(scope="module")
def read(folder: Path, bucket: str, written: dict[str, Seen]) -> dict[str, Seen]:
    """Two workers restore: from the damaged ones, from the bucket, and where there is nothing whole."""
    tasks = [Task("whole", VARIANT, load=str(folder / "local"))]
    for what in DAMAGES:
        place = folder / what
        shutil.copytree(folder / "local", place)
        damage(place, what)
        tasks.append(Task(what, VARIANT, load=str(place)))
    both = folder / "both"
    shutil.copytree(folder / "cut", both)
    for file in (both / f"step-{OLDER:07d}").glob("rank-0000-*.safetensors"):
        file.unlink()
    partial = folder / "partial"
    shutil.copytree(folder / "local" / f"step-{OLDER:07d}", partial / f"step-{OLDER:07d}")
    (partial / f"step-{OLDER:07d}" / COMMIT_NAME).unlink()
    tasks += [
        Task("bucket", VARIANT, load=f"s3://runs/training{bucket}"),
        Task("both damaged", VARIANT, load=str(both)),
        Task("another model", replace(VARIANT, tied=False), load=str(folder / "local")),
        Task("partial", VARIANT, load=str(partial)),
        Task("nothing", VARIANT, load=str(folder / "nothing")),
    ]
    return run_ranks(2, tasks, folder)


def test_the_newest_whole_checkpoint_is_read(written: dict[str, Seen], read: dict[str, Seen]) -> None:
    assert read["whole"].loaded == written["local-newer"].saved
    assert read["whole"].loop_state["total_steps"] == NEWER
    assert read["whole"].warnings == []


@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_by_all_ranks_with_a_warning(
    folder: Path, written: dict[str, Seen], read: dict[str, Seen], what: str
) -> None:
    assert read[what].loaded == written["local-older"].saved
    assert read[what].loop_state["total_steps"] == OLDER
    if what == "no commit":
        # Nobody was ever told of it.
        assert read[what].warnings == []
    else:
        (warning,) = read[what].warnings
        assert f"step {NEWER} is damaged" in warning
        assert DAMAGES[what] in warning
    # The run will come to that step again: nothing of it must be mixed with what is written then.
    assert not (folder / what / f"step-{NEWER:07d}").exists()


def test_where_no_checkpoint_can_be_read_nothing_is_trained(read: dict[str, Seen]) -> None:
    assert "none of the 2 checkpoints" in read["both damaged"].error
    assert "--redo train" in read["both damaged"].error
    assert len(read["both damaged"].warnings) == 2
    assert "--redo train" in read["another model"].error
    assert "other parameters" in read["another model"].warnings[0]


@pytest.mark.parametrize("name", ["partial", "nothing"])
def test_a_training_whose_first_checkpoint_was_never_finished_starts_from_the_beginning(
    folder: Path, read: dict[str, Seen], name: str
) -> None:
    assert read[name].error == ""
    assert read[name].loop_state["total_steps"] == 0
    assert not list((folder / name).glob("step-*"))


def test_a_bucket_holds_the_same_checkpoint_as_a_folder(
    folder: Path, bucket: str, written: dict[str, Seen], read: dict[str, Seen]
) -> None:
    assert written["bucket-newer"].saved == written["local-newer"].saved
    assert read["bucket"].loaded == written["local-newer"].saved
    in_bucket = Folder(f"s3://runs/training{bucket}")
    assert committed_steps(in_bucket) == [NEWER, OLDER]
    files = [
        [(file.num_bytes, file.sha256, file.fragments) for file in read_commit(place, NEWER).files]
        for place in (in_bucket, Folder(str(folder / "local")))
    ]
    assert files[0] == files[1]
    assert not list(folder.glob("asclepius-checkpoint-*")), "a scratch folder was left behind"


def test_a_full_disk_is_named_and_the_checkpoint_before_stays_whole(
    small_disk: Path, written: dict[str, Seen]
) -> None:
    error = written["full-newer"].error
    assert written["full-older"].error == ""
    assert "No space left on device" in error
    assert str(small_disk) in error
    training = Folder(str(small_disk / "training"))
    assert committed_steps(training) == [OLDER]
    commit = read_commit(training, OLDER)
    step = small_disk / "training" / f"step-{OLDER:07d}"
    assert all((step / file.name).stat().st_size == file.num_bytes for file in commit.files)
    assert not list(small_disk.rglob("*.partial")), "the room was not given back"


def test_a_failed_upload_is_an_error_of_the_training(written: dict[str, Seen]) -> None:
    assert "could not be written to s3://no-such-bucket/training" in written["nowhere-older"].error


def test_the_files_are_for_their_owner_alone(folder: Path, written: dict[str, Seen]) -> None:
    step = folder / "local" / f"step-{NEWER:07d}"
    assert step.stat().st_mode & 0o777 == 0o700
    modes = {file.name: file.stat().st_mode & 0o777 for file in step.iterdir()}
    assert len(modes) >= 6
    assert set(modes.values()) == {0o600}
