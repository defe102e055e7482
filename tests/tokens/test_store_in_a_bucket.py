"""A store in a bucket: one copy a node, whole and checked, however many ranks ask for it."""

import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_buckets import local_bucket

from asclepius_ray.artifacts import Folder, Manifest, write_manifest
from asclepius_ray.errors import ArtifactError
from asclepius_ray.node_cache import cache_folder, fetch_to_node, forget_on_node
from asclepius_ray.tokens.rendering import TokenizedExample
from asclepius_ray.tokens.store import open_documents, shard_name, write_index, write_shard

RANKS = 4


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with local_bucket("runs") as uri:
        yield uri


@pytest.fixture
def store(
    bucket: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Folder:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    name = request.node.name.replace("[", "-").rstrip("]")
    return Folder(bucket.format(f"{name}/tokens"))


def write_store(store: Folder) -> Manifest:
    parts = [
        write_shard(store, "notes", "train", number, [TokenizedExample([number, 7, 8], [False, True, True])])
        for number in range(3)
    ]
    write_index(store, "notes", "train", parts)
    return write_manifest(store, "tokens", {}, {})


def fetch_and_open(store: Folder, manifest: Manifest) -> tuple[str, int, list[int]]:
    """On one rank: the copy, the number of its file on the disk, and what the store holds."""
    path = fetch_to_node(store, manifest.identity, manifest.files)
    documents = open_documents(path, "notes", "train")
    shard = path / shard_name("notes", "train", 0)
    return str(path), shard.stat().st_ino, [int(documents.tokens(number)[0][0]) for number in range(3)]


def test_all_ranks_of_a_node_read_one_copy(store: Folder) -> None:
    manifest = write_store(store)
    with multiprocessing.get_context("spawn").Pool(RANKS) as pool:
        found = pool.starmap(fetch_and_open, [(store, manifest)] * RANKS, chunksize=1)
    assert len({(path, number) for path, number, _ in found}) == 1
    assert found[0][2] == [0, 1, 2]
    assert Path(found[0][0]).stat().st_mode & 0o077 == 0, "others must not read what may be patients' words"


def test_a_copy_that_was_cut_short_is_fetched_anew(store: Folder) -> None:
    manifest = write_store(store)
    left_behind = cache_folder() / f".{manifest.identity}.partial" / shard_name("notes", "train", 0)
    left_behind.parent.mkdir(parents=True)
    left_behind.write_bytes(b"half of")
    assert fetch_and_open(store, manifest)[2] == [0, 1, 2]


def test_a_file_that_is_not_the_manifests_is_refused(store: Folder) -> None:
    manifest = write_store(store)
    name = shard_name("notes", "train", 1)
    changed = bytearray(store.read_bytes(name))
    changed[len(changed) // 2] ^= 1
    store.write_bytes(name, bytes(changed))
    for _ in range(2):
        with pytest.raises(ArtifactError, match=name):
            fetch_to_node(store, manifest.identity, manifest.files)


def test_a_copy_is_forgotten_from_under_its_readers(store: Folder) -> None:
    manifest = write_store(store)
    path = fetch_to_node(store, manifest.identity, manifest.files)
    documents = open_documents(path, "notes", "train")
    forget_on_node(store, manifest.identity)
    assert not path.exists()
    assert documents.tokens(2)[0].tolist() == [2, 7, 8]


def test_a_local_store_is_read_where_it_is(tmp_path: Path) -> None:
    local = Folder(str(tmp_path / "tokens"))
    manifest = write_store(local)
    assert fetch_to_node(local, manifest.identity, manifest.files) == tmp_path / "tokens"
    forget_on_node(local, manifest.identity)
    assert local.exists(shard_name("notes", "train", 0))
