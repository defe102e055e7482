"""One copy a node of what lies in a bucket: shared by processes, whole or not there, and of one content."""

import fcntl
import hashlib
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import numpy as np
import pytest
from moto.server import ThreadedMotoServer

from asclepius_ray.artifacts import MANIFEST_NAME, Folder, read_manifest, write_manifest
from asclepius_ray.errors import ArtifactError
from asclepius_ray.node_cache import UNKNOWN, UNUSED_SECONDS, cache_folder, fetch_to_node, forget_on_node

FILES = {"config.json": b"{}", "weights/one.bin": b"1" * 30_000, "weights/two.bin": b"2" * 20_000}


class CountingServer(ThreadedMotoServer):
    """A server of the bucket's protocol that counts what is read, and can be slow about one file."""

    def __init__(self) -> None:
        super().__init__(port=0)
        self.reads: list[str] = []
        self.slow_name = "\0"
        self.slow_seconds = 0.0

    def start(self) -> None:
        super().start()
        while self._server is None:
            time.sleep(0.01)
        serve = self._server.app

        def counted(environment: dict, respond: object) -> object:
            if environment["REQUEST_METHOD"] == "GET" and "list-type" not in environment["QUERY_STRING"]:
                self.reads.append(environment["PATH_INFO"])
                if self.slow_name in environment["PATH_INFO"]:
                    time.sleep(self.slow_seconds)
            return serve(environment, respond)

        self._server.app = counted


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[CountingServer]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    started = CountingServer()
    started.start()
    yield started
    started.stop()


@pytest.fixture
def bucket(server: CountingServer) -> Folder:
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket="runs")
    folder = Folder(f"s3://runs/artefact?region=us-east-1&endpoint_override={endpoint}")
    for name, content in FILES.items():
        folder.write_bytes(name, content)
    server.reads.clear()
    return folder


def hashes(names: Iterator[str] | list[str] | None = None) -> dict[str, str]:
    if names is None:
        names = list(FILES)
    return {name: hashlib.sha256(FILES[name]).hexdigest() for name in names}


def contents(path: Path) -> dict[str, bytes]:
    return {
        file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()
    }


def fetch(uri: str, wanted: dict[str, str]) -> None:
    """What a process of its own does."""
    fetch_to_node(Folder(uri), "identity", wanted)


def test_a_local_folder_is_its_own_copy(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    assert fetch_to_node(folder, "identity", {"missing": "0"}) == tmp_path


def test_each_file_is_read_once_for_all_processes(server: CountingServer, bucket: Folder) -> None:
    server.slow_name, server.slow_seconds = "one.bin", 1.0
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=fetch, args=(bucket.uri, hashes())) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert contents(cache_folder() / "identity") == FILES
    read = [name for name in server.reads if any(name.endswith(file) for file in FILES)]
    assert len(read) == len(set(read)) == len(FILES)


def test_files_that_are_not_asked_for_stay_where_they_are(server: CountingServer, bucket: Folder) -> None:
    small = fetch_to_node(bucket, "identity", hashes(["config.json"]))
    assert contents(small) == {"config.json": FILES["config.json"]}
    server.reads.clear()
    assert fetch_to_node(bucket, "identity", hashes()) == small
    assert contents(small) == FILES
    assert not [name for name in server.reads if name.endswith("config.json")]


def test_a_copy_cut_short_by_a_kill_goes_on_with_what_is_missing(
    server: CountingServer, bucket: Folder
) -> None:
    server.slow_name, server.slow_seconds = "two.bin", 30.0
    process = multiprocessing.get_context("spawn").Process(target=fetch, args=(bucket.uri, hashes()))
    process.start()
    target = cache_folder() / "identity"
    while not ("/runs/artefact/weights/two.bin" in server.reads and contents(target)):
        assert process.is_alive()
        time.sleep(0.05)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    # The client may hold back a file while another is on its way.
    missing = FILES.keys() - contents(target).keys()
    assert "weights/two.bin" in missing
    assert len(missing) < len(FILES)
    server.reads.clear()
    server.slow_seconds = 0.0
    assert contents(fetch_to_node(bucket, "identity", hashes())) == FILES
    read = sorted(name for name in server.reads if name.endswith((".bin", ".json")))
    assert read == sorted(f"/runs/artefact/{name}" for name in missing)
    assert {entry.name for entry in target.parent.iterdir()} == {"identity", ".identity.lock", "lock"}


def test_a_file_that_is_not_what_the_manifest_says_gets_no_name(bucket: Folder) -> None:
    wanted = {**hashes(), "weights/two.bin": hashlib.sha256(b"other").hexdigest()}
    with pytest.raises(ArtifactError, match=r"two\.bin is not what its manifest says"):
        fetch_to_node(bucket, "identity", wanted)
    assert not (cache_folder() / "identity" / "weights" / "two.bin").exists()
    bucket.write_bytes("weights/two.bin", b"other")
    found = contents(fetch_to_node(bucket, "identity", wanted))
    assert found == {**FILES, "weights/two.bin": b"other"}


def test_another_content_has_another_place(bucket: Folder) -> None:
    first = write_manifest(bucket, "tokens", {}, {"made": 1})
    one = fetch_to_node(bucket, first.identity, {**first.files, MANIFEST_NAME: UNKNOWN})
    bucket.write_bytes("config.json", b"changed")
    second = write_manifest(bucket, "tokens", {}, {"made": 1})
    two = fetch_to_node(bucket, second.identity, {**second.files, MANIFEST_NAME: UNKNOWN})
    assert (one / "config.json").read_bytes() == b"{}"
    assert (two / "config.json").read_bytes() == b"changed"
    assert read_manifest(Folder(str(one))).identity == first.identity != second.identity


def test_a_cache_that_cannot_be_written_says_what_to_set(bucket: Folder, tmp_path: Path) -> None:
    (tmp_path / "cache" / "asclepius-ray" / "identity").mkdir(parents=True)
    (tmp_path / "cache" / "asclepius-ray" / "identity" / "weights").write_text("a file, and no folder")
    with pytest.raises(ArtifactError, match=r"cannot be copied to .* set XDG_CACHE_HOME") as failed:
        fetch_to_node(bucket, "identity", hashes())
    assert "\n" not in str(failed.value)


def test_a_copy_that_is_forgotten_is_fetched_anew(server: CountingServer, bucket: Folder) -> None:
    target = fetch_to_node(bucket, "identity", hashes())
    mapped = np.memmap(target / "weights" / "one.bin", mode="r")
    forget_on_node(bucket, "identity")
    assert not target.exists()
    assert bytes(mapped) == FILES["weights/one.bin"]
    server.reads.clear()
    assert contents(fetch_to_node(bucket, "identity", hashes())) == FILES
    assert len(server.reads) == len(FILES)


def make_old(identity: str) -> None:
    """As if no process had asked for this copy for a little longer than copies are kept."""
    then = time.time() - UNUSED_SECONDS - 60
    os.utime(cache_folder() / f".{identity}.lock", (then, then))


def test_a_copy_that_nobody_uses_for_long_goes_when_another_is_fetched(bucket: Folder) -> None:
    old, kept = (fetch_to_node(bucket, identity, hashes()) for identity in ("old", "kept"))
    partial = cache_folder() / ".old.partial"
    partial.mkdir()
    make_old("old")
    fetch_to_node(bucket, "kept", hashes())
    assert old.exists(), "where nothing is fetched nothing needs room"
    fetch_to_node(bucket, "new", hashes(["config.json"]))
    assert not old.exists()
    assert not partial.exists()
    assert contents(kept) == FILES
    assert contents(fetch_to_node(bucket, "old", hashes())) == FILES


def test_a_copy_that_is_used_is_kept_however_old_it_is(server: CountingServer, bucket: Folder) -> None:
    copy = fetch_to_node(bucket, "identity", hashes())
    make_old("identity")
    server.reads.clear()
    assert fetch_to_node(bucket, "identity", hashes()) == copy
    fetch_to_node(bucket, "new", hashes(["config.json"]))
    assert contents(copy) == FILES
    assert [name for name in server.reads if not name.endswith("config.json")] == []


def test_a_use_waits_while_old_copies_are_dropped(bucket: Folder) -> None:
    copy = fetch_to_node(bucket, "identity", hashes())
    make_old("identity")
    user = threading.Thread(target=fetch, args=(bucket.uri, hashes()))
    with (cache_folder() / "lock").open("r+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        user.start()
        user.join(0.5)
        assert user.is_alive(), "what it is given may be gone in a moment"
        shutil.rmtree(copy)
    user.join()
    assert contents(copy) == FILES


def test_a_local_folder_is_never_forgotten(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b"{}")
    forget_on_node(Folder(str(tmp_path)), "identity")
    assert (tmp_path / "config.json").exists()


def test_the_copies_are_closed_to_others(bucket: Folder) -> None:
    target = fetch_to_node(bucket, "identity", hashes())
    assert target.stat().st_mode & 0o077 == 0
    assert all(file.stat().st_mode & 0o077 == 0 for file in target.rglob("*") if file.is_file())
