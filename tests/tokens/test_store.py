"""The token store: what was written comes back, an index needs no token, nothing damaged is read."""

import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import ArtifactError
from asclepius_ray.tokens.rendering import TokenizedExample
from asclepius_ray.tokens.store import (
    index_name,
    open_documents,
    read_index,
    shard_name,
    write_index,
    write_shard,
)

DOCUMENTS = [
    TokenizedExample(
        list(range(start, start + 2 + start % 3)), [False, True, start % 2 == 0, True][: 2 + start % 3]
    )
    for start in range(10)
]


def write_store(folder: Path, documents: list[TokenizedExample], shards: list[slice]) -> None:
    parts = [
        write_shard(Folder(str(folder)), "notes", "train", number, documents[part])
        for number, part in enumerate(shards)
    ]
    write_index(Folder(str(folder)), "notes", "train", parts)


@pytest.mark.parametrize(
    "shards",
    [
        [slice(0, 10)],
        [slice(0, 6), slice(6, 10)],
        [slice(0, 0), slice(0, 9), slice(9, 9), slice(9, 10), slice(0, 0)],
    ],
    ids=["one shard", "two shards", "empty shards"],
)
def test_the_store_gives_back_what_was_written_by_number(tmp_path: Path, shards: list[slice]) -> None:
    write_store(tmp_path, DOCUMENTS, shards)
    found = open_documents(tmp_path, "notes", "train")
    assert len(found) == len(DOCUMENTS)
    for number in reversed(range(len(DOCUMENTS))):
        ids, mask = found.tokens(number)
        assert ids.tolist() == DOCUMENTS[number].input_ids
        assert mask.tolist() == DOCUMENTS[number].loss_mask
        assert found.index.tokens[number] == len(ids)
        assert found.index.loss_tokens[number] == mask.sum()


def test_a_kind_without_documents_is_empty(tmp_path: Path) -> None:
    write_store(tmp_path, [], [])
    assert len(open_documents(tmp_path, "notes", "train")) == 0


def test_the_index_is_read_without_a_token(tmp_path: Path) -> None:
    write_store(tmp_path, DOCUMENTS, [slice(0, 6), slice(6, 10)])
    for number in range(2):
        (tmp_path / shard_name("notes", "train", number)).unlink()
    index = read_index(Folder(str(tmp_path)), "notes", "train")
    assert index.tokens.tolist() == [len(document.input_ids) for document in DOCUMENTS]


@pytest.mark.parametrize("damage", ["cut short", "gone", "of another store", "index cut short"])
def test_a_damaged_store_is_refused_by_name_when_it_is_opened(tmp_path: Path, damage: str) -> None:
    write_store(tmp_path, DOCUMENTS, [slice(0, 6), slice(6, 10)])
    shard = tmp_path / shard_name("notes", "train", 1)
    if damage == "cut short":
        shard.write_bytes(shard.read_bytes()[:-40])
    elif damage == "gone":
        shard.unlink()
    elif damage == "of another store":
        shard.write_bytes((tmp_path / shard_name("notes", "train", 0)).read_bytes())
    else:
        index = tmp_path / index_name("notes", "train")
        index.write_bytes(index.read_bytes()[:20])
    with pytest.raises(ArtifactError, match=r"--redo train") as failed:
        open_documents(tmp_path, "notes", "train")
    assert str(tmp_path) in str(failed.value)


def read_all(store: Path) -> int:
    """Touches every token; returns the bytes that the process needs for itself, without the files' pages."""
    documents = open_documents(store, "notes", "train")
    assert sum(int(documents.tokens(number)[0].sum()) for number in range(len(documents))) > 0
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def test_a_rank_holds_no_copy_of_the_store(tmp_path: Path) -> None:
    ids = list(range(4_000))
    documents = [TokenizedExample(ids, [False] + [True] * 3_999)] * 500
    write_store(tmp_path / "small", documents[:1], [slice(0, 1)])
    write_store(tmp_path / "large", documents, [slice(0, 500)] * 10)
    size = sum(file.stat().st_size for file in (tmp_path / "large").rglob("*.arrow"))
    assert size > 80_000_000
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        # The first read has costs of its own, such as the libraries that it loads.
        before = pool.apply(read_all, (tmp_path / "small",))
        assert pool.apply(read_all, (tmp_path / "large",)) - before < size / 16
    assert np.array_equal(open_documents(tmp_path / "large", "notes", "train").tokens(4_999)[0], ids)
