"""The index of 500,000 bought answers, out of as many objects as there may be: a folder and a bucket."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from chat.large_journal import load_in_a_new_process, write_journal
from conftest import Note
from local_buckets import local_bucket

from asclepius_ray.artifacts import Folder

NUM_ENTRIES = 500_000
MOST_SECONDS, MOST_MIB, MOST_OBJECTS = 10.0, 500.0, 2000


@pytest.fixture
def bucket() -> Iterator[str]:
    with local_bucket("journals") as uri:
        yield uri.format("large")


@pytest.mark.parametrize(
    ("where", "entries_per_segment"), [("folder", 270), ("bucket", 2500)], ids=["folder", "bucket"]
)
def test_the_index_of_half_a_million_answers_is_loaded_quickly(
    where: str,
    entries_per_segment: int,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    note: Note,
    is_quick: bool,
) -> None:
    """In the folder nothing was ever merged; in the bucket segments are merged as in a run."""
    num_entries = NUM_ENTRIES // 10 if is_quick else NUM_ENTRIES
    uri = str(tmp_path) if where == "folder" else request.getfixturevalue("bucket")
    started = time.monotonic()
    write_journal(Folder(uri), num_entries, entries_per_segment, merges=where == "bucket")
    written_seconds = time.monotonic() - started
    loaded = load_in_a_new_process(Folder(uri))
    note(
        f"load the journal, {where}",
        "asclepius-ray",
        loaded.num_entries,
        loaded.seconds,
        f"{loaded.mib:.0f} MiB, {loaded.num_objects} objects; written in {written_seconds:.0f} s",
        f"< {MOST_SECONDS:.0f} s, < {MOST_MIB:.0f} MB, < {MOST_OBJECTS} objects",
    )
    assert (loaded.num_entries, loaded.num_completions, loaded.num_found) == (num_entries, num_entries, 4)
    assert loaded.num_objects < MOST_OBJECTS
    if not is_quick:
        assert loaded.seconds < MOST_SECONDS
        assert loaded.mib < MOST_MIB
