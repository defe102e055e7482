"""Loading the index of a large journal: quick and small. 500,000 entries are for tests/benchmarks."""

from pathlib import Path

from large_journal import load_in_a_new_process, write_journal

from asclepius_ray.artifacts import Folder

NUM_ENTRIES = 50_000


def test_an_index_of_fifty_thousand_entries_is_loaded_within_a_tenth_of_what_ten_times_as_many_may_take(
    tmp_path: Path,
) -> None:
    folder = Folder(str(tmp_path))
    write_journal(folder, NUM_ENTRIES, entries_per_segment=270)
    loaded = load_in_a_new_process(folder)
    assert (loaded.num_entries, loaded.num_completions, loaded.num_found) == (NUM_ENTRIES, NUM_ENTRIES, 4)
    assert loaded.num_objects < 200
    assert loaded.seconds < 1.0
    assert loaded.mib < 50.0
