"""`asclepius publish` to a folder and to a bucket, over the real S3 protocol of moto's server."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from finished_run import SHARDS, run_publish, start_publish
from moto.server import ThreadedMotoServer

from asclepius_ray.artifacts import MANIFEST_NAME, Folder, is_finished, read_manifest


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URI of an empty bucket."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1").create_bucket(
        Bucket="out"
    )
    yield f"s3://out/given?endpoint_override=http%3A%2F%2F{host}%3A{port}&region=us-east-1"
    server.stop()


def content(folder: Folder) -> dict[str, bytes]:
    return {name: folder.read_bytes(name) for name in folder.names()}


def expected(root: Path, kind: str) -> dict[str, bytes]:
    folder = Folder(str(root / kind))
    return {name: folder.read_bytes(name) for name in [*read_manifest(folder).files, MANIFEST_NAME]}


def version_of(root: Path, kind: str) -> str:
    return read_manifest(Folder(str(root / kind))).identity[:16]


def test_both_arrive_in_a_bucket_under_their_version(root: Path, bucket: str, tmp_path: Path) -> None:
    code, said = run_publish([root, "--to", bucket], {}, tmp_path)
    assert code == 0, said
    given = Folder(bucket)
    for kind in ("dataset", "model"):
        assert content(given.child(kind).child(version_of(root, kind))) == expected(root, kind)
    assert len(given.names()) == len(expected(root, "dataset")) + len(expected(root, "model"))


def test_a_run_in_a_bucket_can_be_published_too(root: Path, bucket: str, tmp_path: Path) -> None:
    away = Folder(bucket).child("run")
    away.upload(root)
    code, said = run_publish([away.uri, "--to", str(tmp_path / "given"), "--model"], {}, tmp_path)
    assert code == 0, said
    place = Folder(str(tmp_path / "given" / "model" / version_of(root, "model")))
    assert content(place) == expected(root, "model")


def test_killed_while_copying_no_manifest_is_there_and_the_same_command_goes_on(
    root: Path, tmp_path: Path
) -> None:
    given = tmp_path / "given"
    arguments = [str(root), "--to", str(given)]
    place = Folder(str(given / "model" / version_of(root, "model")))
    first, second, third = (f"model-{n:05d}-of-{SHARDS:05d}.safetensors" for n in (1, 2, 3))
    whole = (root / "model" / second).stat().st_size
    # A pipe that nobody reads: here the command stands still until it is killed.
    place.make()
    os.mkfifo(place.local_path / third)
    process = start_publish(arguments, {}, tmp_path)
    deadline = time.monotonic() + 60
    while place.sizes().get(second) != whole and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    (place.local_path / third).unlink()
    there = {name: (place.local_path / name).stat().st_mtime_ns for name in place.names()}
    assert there.keys() == {"README.md", "SHA256SUMS", "config.json", first, second}
    for kind in ("dataset", "model"):
        assert not is_finished(Folder(str(given / kind / version_of(root, kind))))
    # What was cut off in its middle does not count as there, nor does what is as long and differs.
    with (place.local_path / first).open("r+b") as stream:
        stream.truncate(whole // 2)
    (place.local_path / "config.json").write_text("x" * len((root / "model" / "config.json").read_text()))
    code, said = run_publish(arguments, {}, tmp_path)
    assert code == 0, said
    assert content(place) == expected(root, "model")
    kept = [name for name, stamp in there.items() if (place.local_path / name).stat().st_mtime_ns == stamp]
    assert kept == ["README.md", "SHA256SUMS", second]


def test_a_finished_publication_is_not_copied_again(root: Path, tmp_path: Path) -> None:
    arguments = [root, "--to", str(tmp_path / "given")]
    assert run_publish(arguments, {}, tmp_path)[0] == 0
    stamps = {file: file.stat().st_mtime_ns for file in (tmp_path / "given").rglob("*") if file.is_file()}
    assert run_publish(arguments, {}, tmp_path)[0] == 0
    assert stamps == {file: file.stat().st_mtime_ns for file in stamps}


def test_public_is_no_word_for_a_bucket(root: Path, tmp_path: Path) -> None:
    code, said = run_publish([root, "--to", "s3://out/given", "--public"], {}, tmp_path)
    assert code == 2, said
    assert "--public opens a repository" in said
