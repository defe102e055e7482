import itertools
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_buckets import local_bucket

from asclepius_ray.artifacts import Folder, is_finished, read_manifest, write_manifest
from asclepius_ray.errors import ArtifactError


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with local_bucket("runs") as uri:
        yield uri


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    if request.param == "local":
        return Folder(str(tmp_path / "run" / "dataset"))
    bucket = request.getfixturevalue("bucket")
    return Folder(bucket.format(f"{tmp_path.name}/dataset"))


@pytest.mark.parametrize("other", ["s3://b/run", "gs://a/run", "/a/run", "s3://a/further/run"])
def test_two_roots_of_one_name_have_labels_of_their_own_in_the_figures(other: str) -> None:
    root = Folder("s3://a/run")
    assert Folder(other).run_label.startswith("run-")
    assert Folder(other).run_label != root.run_label
    for same in ("s3://a/run/", "s3://a/run?region=us-east-1"):
        assert Folder(same).run_label == root.run_label
    with_key, without = Folder("s3://ID:secret@a/run"), Folder("s3://ID:another@a/run")
    assert with_key.run_label == without.run_label


def test_a_folder_is_whole_only_with_its_manifest(folder: Folder) -> None:
    folder.make()
    with folder.open_output("train-00000.parquet") as stream:
        stream.write(b"rows")
    assert not is_finished(folder)
    written = write_manifest(folder, "dataset", {"ok": 1}, {"seed": 1})
    assert is_finished(folder)
    assert read_manifest(folder) == written
    assert list(written.files) == ["train-00000.parquet"]


def test_clearing_leaves_nothing_behind(folder: Folder) -> None:
    folder.make()
    folder.write_bytes("part/a", b"a")
    write_manifest(folder, "dataset", {}, {})
    folder.clear()
    assert folder.names() == []
    assert not is_finished(folder)


def test_a_folder_goes_to_the_store_and_back_unchanged(folder: Folder, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "file").write_bytes(os.urandom(100_000))
    folder.upload(source)
    folder.download(tmp_path / "back")
    assert (tmp_path / "back" / "deep" / "file").read_bytes() == (source / "deep" / "file").read_bytes()


def test_a_file_that_is_written_anew_meanwhile_is_read_whole(bucket: str) -> None:
    folder = Folder(bucket.format("rewritten"))
    contents = {b"x" * length + b"." for length in (1, 3000, 10, 800)}
    folder.write_bytes("lease", b".")
    ended = threading.Event()

    def write_anew() -> None:
        for content in itertools.cycle(contents):
            if ended.wait(0.01):
                return
            folder.write_bytes("lease", content)

    writer = threading.Thread(target=write_anew)
    writer.start()
    try:
        # Without the second look at the length some of these are cut off.
        read = {folder.read_bytes("lease") for _ in range(200)}
    finally:
        ended.set()
        writer.join()
    assert read <= contents | {b"."}
    assert len(read) > 1


def test_a_file_that_is_removed_meanwhile_is_not_there_and_no_failure_of_the_bucket(bucket: str) -> None:
    folder = Folder(bucket.format("removed"))
    ended = threading.Event()

    def write_and_remove() -> None:
        while not ended.is_set():
            folder.write_bytes("mark", b"alive")
            folder.delete("mark")

    writer = threading.Thread(target=write_and_remove)
    writer.start()
    num_read = num_missed = 0
    try:
        for _ in range(400):
            try:
                num_read += folder.read_bytes("mark") == b"alive"
            except FileNotFoundError:
                num_missed += 1
    finally:
        ended.set()
        writer.join()
    assert num_read + num_missed == 400
    assert num_read > 0


def test_the_child_of_a_uri_keeps_its_query(bucket: str) -> None:
    root = Folder(bucket.format("root"))
    root.child("notes").write_bytes("x", b"1")
    assert root.names() == ["notes/x"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not readable JSON"),
        (b'{"format_version": 99}', "format version 99"),
        (b'{"format_version": 1}', "damaged"),
        (b"[]", "format version None"),
    ],
    ids=["torn", "other format", "fields missing", "not an object"],
)
def test_a_foreign_manifest_is_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=message):
        read_manifest(Folder(str(tmp_path)))


def test_a_new_root_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "root"))
    folder.make()
    assert stat.S_IMODE(folder.local_path.stat().st_mode) == 0o700


def test_an_identity_follows_content_and_origin(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    folder.write_bytes("a", b"1")
    first = write_manifest(folder, "x", {}, {"seed": 1})
    again = write_manifest(folder, "x", {}, {"seed": 1})
    other_origin = write_manifest(folder, "x", {}, {"seed": 2})
    folder.write_bytes("a", b"2")
    other_content = write_manifest(folder, "x", {}, {"seed": 1})
    assert first.identity == again.identity
    assert len({first.identity, other_origin.identity, other_content.identity}) == 3


def test_many_files_are_removed_only_as_long_as_the_root_is_the_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, answers = Folder(str(tmp_path)), [True, True, False]
    names = [f"{number}.bin" for number in range(5)]
    for name in names:
        folder.write_bytes(name, b"x")

    def confirm() -> None:
        if not answers.pop(0):
            raise SystemExit("taken over")

    monkeypatch.setattr("asclepius_ray.artifacts.CONFIRM_SECONDS", 0.0)
    monkeypatch.setattr("asclepius_ray.fence._confirm", confirm)
    with pytest.raises(SystemExit, match="taken over"):
        folder.delete_all(names)
    assert folder.names() == names[2:]
