"""A journal that is torn, flipped, killed or without room: it loses what is damaged, and nothing else."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from journal_entries import contents_of, entry_of, failure_of, write_segments

from asclepius_ray.artifacts import Folder
from asclepius_ray.chat.journal.journal import MERGED_AT_ONCE, Journal
from asclepius_ray.chat.journal.segment import FRAME_BYTES, decode_tail, tail_bytes


def test_a_kill_in_the_middle_of_a_merge_counts_nothing_twice(folder: Folder) -> None:
    """The merged segment is there, and so are the last ten of those that it replaces."""
    entries = [entry_of(number) for number in range(MERGED_AT_ONCE - 1)] + [failure_of(99)]
    journal = write_segments(folder, [[entry] for entry in entries])
    before = {name: folder.read_bytes(name) for name in folder.names()}
    assert journal.merge()
    for name, content in list(before.items())[-10:]:
        folder.write_bytes(name, content)
    killed = Journal.open(folder)
    assert killed.totals() == journal.totals()
    assert len(killed) == len(entries)
    assert killed.num_segments == 1
    assert contents_of(killed, entries) == entries
    killed.merge()
    assert len(folder.names()) == 1
    assert Journal.open(folder).totals() == journal.totals()


def test_a_torn_object_in_a_bucket_costs_only_its_own_tail(bucket: str, tmp_path: Path) -> None:
    folder = Folder(bucket.format(f"{tmp_path.name}/torn"))
    entries = [entry_of(number) for number in range(4)]
    write_segments(folder, [entries[:3], entries[3:]])
    name, content = folder.names()[0], folder.read_bytes(folder.names()[0])
    folder.write_bytes(name, content[: len(content) // 3])
    journal = Journal.open(folder)
    assert journal.damaged_segments == 1
    assert contents_of(journal, entries) == [entries[0], entries[3]]


SMALL = [entry_of(0, "first"), failure_of(1), entry_of(2, "third")]
BESIDE = entry_of(3, "in another segment")


def small_segment(folder: Path) -> tuple[Path, bytes, list[int]]:
    """A journal of two segments: the file of the first, its bytes, and where each of its records ends."""
    write_segments(Folder(str(folder)), [SMALL, [BESIDE]])
    path = sorted(folder.glob("*.segment"))[0]
    content = path.read_bytes()
    wanted = tail_bytes(content)
    assert wanted is not None
    tail = decode_tail(content[-wanted:])
    assert tail is not None
    return path, content, (tail.index["offset"] + tail.index["length"]).tolist()


def test_a_segment_cut_at_any_byte_loses_only_what_is_cut(tmp_path: Path) -> None:
    path, content, ends = small_segment(tmp_path)
    for length in range(len(content)):
        path.write_bytes(content[:length])
        journal = Journal.open(Folder(str(tmp_path)))
        whole = [entry for entry, end in zip(SMALL, ends, strict=True) if end <= length]
        assert contents_of(journal, [*SMALL, BESIDE]) == [*whole, BESIDE], f"cut at byte {length}"
        assert len(journal) == len(whole) + 1
        assert journal.damaged_segments == 1, f"cut at byte {length}"


def test_a_segment_whose_end_is_zeros_loses_only_what_is_gone(tmp_path: Path) -> None:
    """As some file systems leave a file when the power fails: the right length, and zeros from somewhere."""
    path, content, ends = small_segment(tmp_path)
    for length in range(len(content)):
        path.write_bytes(content[:length].ljust(len(content), b"\x00"))
        journal = Journal.open(Folder(str(tmp_path)))
        whole = [entry for entry, end in zip(SMALL, ends, strict=True) if end <= length]
        assert contents_of(journal, [*SMALL, BESIDE]) == [*whole, BESIDE], f"zeros from byte {length}"
        # The last byte of a checksum may be a zero anyway.
        assert journal.damaged_segments == (content[length:].strip(b"\x00") != b"")


def test_a_flipped_byte_costs_only_the_record_that_it_hits_and_is_counted(tmp_path: Path) -> None:
    path, content, ends = small_segment(tmp_path)
    starts = [0, *ends[:-1]]
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        journal = Journal.open(Folder(str(tmp_path)))
        spared = [
            entry
            for entry, start, end in zip(SMALL, starts, ends, strict=True)
            if not start <= position < end
        ]
        assert contents_of(journal, [*SMALL, BESIDE]) == [*spared, BESIDE], f"byte {position}"
        is_counted = journal.damaged_segments + journal.damaged_records > 0
        # Some bytes of the trailer are for readers of the file alone, and nothing is lost with them.
        assert is_counted or position > ends[-1], f"byte {position}"


def test_what_damage_has_cost_can_be_bought_again_and_stays(tmp_path: Path) -> None:
    path, content, ends = small_segment(tmp_path)
    for length in (ends[0] + FRAME_BYTES + 5, len(content)):
        damaged = bytearray(content[:length])
        damaged[ends[0] + FRAME_BYTES + 3] ^= 0xFF
        path.write_bytes(damaged)
        journal = Journal.open(Folder(str(tmp_path)))
        lost = {entry.key for entry in SMALL} - set(journal.read([entry.key for entry in SMALL]))
        assert lost
        assert not any(key in journal for key in lost)
        for entry in SMALL:
            if entry.key in lost:
                journal.append(entry)
        journal.flush()
        reopened = Journal.open(Folder(str(tmp_path)))
        assert contents_of(reopened, [*SMALL, BESIDE]) == [*SMALL, BESIDE]
        for newer in sorted(tmp_path.glob("*.segment"))[2:]:
            newer.unlink()


def test_damaged_segments_are_merged_without_loss_of_what_is_readable(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    entries = [entry_of(number) for number in range(2 * MERGED_AT_ONCE)]
    pairs = [entries[start : start + 2] for start in range(0, len(entries), 2)]
    write_segments(folder, pairs)
    paths = sorted(tmp_path.glob("*.segment"))
    paths[3].write_bytes(paths[3].read_bytes()[:-1])
    paths[5].write_bytes(b"")
    paths[7].write_bytes(paths[7].read_bytes()[:400])
    journal = Journal.open(folder)
    readable = contents_of(journal, entries)
    assert len(readable) == len(entries) - 3
    assert journal.damaged_segments == 3
    assert journal.merge()
    assert contents_of(journal, entries) == readable
    assert contents_of(Journal.open(folder), entries) == readable
    assert len(list(tmp_path.glob("*.segment"))) == 1


def test_a_kill_at_any_moment_of_a_merge_leaves_every_entry_once(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "journal"))
    entries = [entry_of(number) for number in range(MERGED_AT_ONCE)]
    journal = write_segments(folder, [[entry] for entry in entries])
    shutil.copytree(tmp_path / "journal", tmp_path / "before")
    totals = journal.totals()
    assert journal.merge()
    for num_left in range(MERGED_AT_ONCE + 1):
        copy = tmp_path / f"killed_{num_left}"
        shutil.copytree(tmp_path / "journal", copy)
        for source in sorted((tmp_path / "before").iterdir())[:num_left]:
            shutil.copy(source, copy)
        killed = Journal.open(Folder(str(copy)))
        assert (killed.totals(), len(killed)) == (totals, len(entries))
        assert contents_of(killed, entries) == entries
        assert not killed.merge()
        assert len(list(copy.iterdir())) == 1


def test_a_merged_segment_that_is_torn_gives_the_word_back_to_its_sources(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "journal"))
    entries = [entry_of(number) for number in range(MERGED_AT_ONCE)]
    journal = write_segments(folder, [[entry] for entry in entries])
    shutil.copytree(tmp_path / "journal", tmp_path / "before")
    assert journal.merge()
    [merged] = (tmp_path / "journal").iterdir()
    content = merged.read_bytes()
    for source in (tmp_path / "before").iterdir():
        shutil.copy(source, tmp_path / "journal")
    for length in range(0, len(content), 97):
        merged.write_bytes(content[:length])
        killed = Journal.open(folder)
        assert contents_of(killed, entries) == entries
        assert killed.totals() == journal.totals()


FULL_DISK = """
import resource, sys
from asclepius_ray.artifacts import Folder
from asclepius_ray.chat.exchange import Completion, Entry
from asclepius_ray.chat.journal.journal import Journal

def limit_files(num_bytes):
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, resource.RLIM_INFINITY))

def entry_of(number):
    answer = Completion("x" * 3000, "stop", "m", 1, 1, 1)
    return Entry(number.to_bytes(32, "little"), "note", answer, 0.5)

def refusals(work):
    try:
        work()
    except OSError:
        return 1
    return 0

journal = Journal.open(Folder(sys.argv[1]))
for number in range(32):
    journal.append(entry_of(number))
    journal.flush()
for number in range(32, 40):
    journal.append(entry_of(number))
limit_files(16_384)
refused = [refusals(journal.flush), refusals(journal.merge), refusals(journal.flush)]
durable, found = journal.last_durable, len(journal.read([entry_of(n).key for n in range(40)]))
journal.append(entry_of(40))
limit_files(resource.RLIM_INFINITY)
journal.flush()
journal.merge()
print(*refused, durable, found, journal.last_durable)
"""


def test_a_full_disk_is_an_error_and_loses_nothing(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == ["1", "1", "1", "32", "40", "41"]
    journal = Journal.open(Folder(str(tmp_path)))
    assert len(journal.read([number.to_bytes(32, "little") for number in range(41)])) == 41
    assert journal.totals()["note"].completions == 41
    assert not list(tmp_path.glob(".*")), "half-written files are left behind"


WRITER = """
import sys, threading
from asclepius_ray.artifacts import Folder
from asclepius_ray.chat.exchange import Completion, Entry
from asclepius_ray.chat.journal.journal import Journal

journal = Journal.open(Folder(sys.argv[1]))
first = int(sys.argv[2])

def merge():
    while True:
        journal.merge()

threading.Thread(target=merge, daemon=True).start()
for number in range(first, first + 1_000_000):
    answer = Completion("x" * (number % 900), "stop", "m", 1, 1, 1)
    journal.append(Entry(number.to_bytes(32, "little"), "note", answer, 0.5))
    if number % 3 == 0:
        journal.flush()
        print(journal.last_durable, flush=True)
"""


def test_what_a_killed_writer_called_durable_is_there(tmp_path: Path) -> None:
    durable: list[bytes] = []
    for life in range(4):
        first = life * 1_000_000
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(first)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        lines = [int(process.stdout.readline()) for _ in range(60 + 37 * life)]
        os.kill(process.pid, signal.SIGKILL)
        lines += [int(line) for line in process.stdout.read().splitlines()]
        assert process.wait(20) == -signal.SIGKILL
        durable += [number.to_bytes(32, "little") for number in range(first, first + lines[-1])]
        journal = Journal.open(Folder(str(tmp_path)))
        assert len(journal.read(durable)) == len(durable)
        # What was written and not told yet may be there on top, and nothing twice.
        assert len(durable) <= journal.totals()["note"].completions <= len(durable) + 4 * 3
        assert journal.totals()["note"].completions == len(journal)
    assert len(list(tmp_path.glob("*.segment"))) < 3 * MERGED_AT_ONCE + 4
