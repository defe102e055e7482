"""The journal of paid answers on a disk and in a bucket: what was durable once is found again."""

import hashlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from local_buckets import local_bucket

from asclepius_ray.artifacts import Folder
from asclepius_ray.chat.exchange import Completion, Entry, Failure, Request, request_key
from asclepius_ray.chat.journal.journal import MERGED_AT_ONCE, Journal
from asclepius_ray.chat.journal.segment import FRAME_BYTES, decode_tail, tail_bytes
from asclepius_ray.chat.journal.totals import StepTotals
from asclepius_ray.chat.replies import FailureReason
from asclepius_ray.records import Message


def entry_of(number: int, text: str = "some text", step: str = "note", cost_usd: float | None = 0.5) -> Entry:
    answer = Completion(f"{text} {number}", "stop", "model", 100 + number, 10, 1)
    return Entry(key_of(number), step, answer, cost_usd)


def failure_of(number: int) -> Entry:
    answer = Failure(FailureReason.BAD_REQUEST, prompt_tokens=7, completion_tokens=3, attempts=2)
    return Entry(key_of(number), "note", answer, 0.25, unsettled_usd=0.125)


def key_of(number: int) -> bytes:
    return hashlib.sha256(f"request {number}".encode()).digest()


def write_segments(folder: Folder, segments: Sequence[Sequence[Entry]]) -> Journal:
    journal = Journal.open(folder)
    for entries in segments:
        for entry in entries:
            journal.append(entry)
        journal.flush()
    return journal


def contents_of(journal: Journal, entries: Sequence[Entry]) -> list[Entry]:
    found = journal.read([entry.key for entry in entries])
    return [found[entry.key] for entry in entries if entry.key in found]


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with local_bucket("journals") as uri:
        yield uri


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    if request.param == "local":
        return Folder(str(tmp_path / "journal"))
    bucket = request.getfixturevalue("bucket")
    return Folder(bucket.format(f"{tmp_path.name}/journal"))


def test_what_was_flushed_is_read_back_by_another_process_unchanged(folder: Folder) -> None:
    entries = [
        entry_of(0, "naïve – \N{GREEK SMALL LETTER MU}g, and half a pair: \ud83d"),
        entry_of(1, "AJR1 AJT1 \x00"),
        entry_of(2, cost_usd=None),
        replace(entry_of(3), unsettled_usd=0.75),
        failure_of(4),
        replace(entry_of(5), answer=Completion("", "length", "m", 1, 2, 3, is_usage_estimated=True)),
    ]
    write_segments(folder, [entries[:4], entries[4:]])
    journal = Journal.open(folder)
    assert contents_of(journal, entries) == entries
    assert all(entry.key in journal for entry in entries)
    assert len(journal) == 6
    assert key_of(6) not in journal
    assert journal.read([key_of(6)]) == {}


def test_what_is_appended_is_found_at_once_and_durable_after_the_flush(folder: Folder) -> None:
    journal = Journal.open(folder)
    assert journal.append(entry_of(1)) == 1
    assert journal.append(entry_of(2)) == 2
    assert contents_of(journal, [entry_of(1), entry_of(2)]) == [entry_of(1), entry_of(2)]
    assert journal.last_durable == 0
    assert len(Journal.open(folder)) == 0
    assert journal.flush() == 2
    assert journal.last_durable == 2
    assert len(Journal.open(folder)) == 2
    assert journal.flush() == 0


def test_merging_keeps_every_entry_and_leaves_few_objects(folder: Folder) -> None:
    entries = [entry_of(number) for number in range(3 * MERGED_AT_ONCE)]
    journal = write_segments(folder, [[entry] for entry in entries])
    reader = Journal.open(folder)
    while journal.merge():
        pass
    assert len(folder.names()) == journal.num_segments == 3
    assert contents_of(journal, entries) == entries
    reopened = Journal.open(folder)
    assert contents_of(reopened, entries) == entries
    assert reopened.totals() == journal.totals() == reader.totals()


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


def test_many_small_segments_never_become_many_objects(tmp_path: Path) -> None:
    """Entries are written anew a few times only: the bytes merged are few times the bytes kept."""
    folder = Folder(str(tmp_path))
    journal = Journal.open(folder)
    entries = [entry_of(number, "x" * (50 + number % 700)) for number in range(1500)]
    most, written = 0, 0
    for entry in entries:
        journal.append(entry)
        journal.flush()
        names = set(folder.names())
        if journal.merge():
            sizes = folder.sizes()
            written += sum(size for name, size in sizes.items() if name not in names)
        most = max(most, journal.num_segments)
    assert most < 100
    assert written < 5 * sum(folder.sizes().values())
    assert contents_of(Journal.open(folder), entries) == entries


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


def test_the_order_of_purchases_survives_merges(tmp_path: Path) -> None:
    """The same request bought anew: the newest answer counts, merged or not."""
    folder = Folder(str(tmp_path))
    versions = [replace(entry_of(0, f"version {number}"), step="answer") for number in range(70)]
    journal = write_segments(folder, [[version, entry_of(number)] for number, version in enumerate(versions)])
    assert journal.merge()
    assert journal.read([key_of(0)])[key_of(0)].answer in (versions[-1].answer, entry_of(0).answer)
    newest = replace(entry_of(0, "newest"), step="answer")
    journal.append(newest)
    journal.flush()
    while journal.merge():
        pass
    assert journal.read([key_of(0)]) == {key_of(0): newest}
    assert Journal.open(folder).read([key_of(0)]) == {key_of(0): newest}


def test_void_failures_count_as_not_bought_and_as_paid(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    journal = write_segments(folder, [[entry_of(0), failure_of(1)], [failure_of(2)]])
    journal.append(failure_of(3))
    paid = journal.totals()
    journal.void_failures()
    for found in (journal, reopened_after_flush(journal, folder)):
        assert [number for number in range(4) if key_of(number) in found] == [0]
        assert list(found.read([key_of(number) for number in range(4)])) == [key_of(0)]
        assert found.totals() == paid
    assert paid["note"].failures == 3
    assert paid["note"].cost_usd == 0.5 + 3 * 0.25


def reopened_after_flush(journal: Journal, folder: Folder) -> Journal:
    journal.flush()
    return Journal.open(folder)


def test_a_failure_after_the_void_mark_is_kept(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    journal = write_segments(folder, [[failure_of(1), failure_of(2), failure_of(3)]])
    journal.void_failures()
    journal.append(failure_of(1))
    journal.append(entry_of(2))
    for found in (journal, reopened_after_flush(journal, folder)):
        assert [number for number in range(4) if key_of(number) in found] == [1, 2]
        assert contents_of(found, [failure_of(1), entry_of(2)]) == [failure_of(1), entry_of(2)]
    again = Journal.open(folder)
    again.void_failures()
    for found in (again, reopened_after_flush(again, folder)):
        assert [number for number in range(4) if key_of(number) in found] == [2]


def test_void_marks_and_other_marks_survive_merges_in_their_order(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    journal = Journal.open(folder)
    for number in range(MERGED_AT_ONCE):
        journal.append(failure_of(number))
        journal.append_mark("deaths", {"row": number})
        if number == 20:
            journal.void_failures()
        journal.flush()
    assert journal.merge()
    for found in (journal, Journal.open(folder)):
        assert [number for number in range(40) if key_of(number) in found] == list(range(21, MERGED_AT_ONCE))
        assert found.marks("deaths") == [{"row": number} for number in range(MERGED_AT_ONCE)]
        assert found.marks("others") == []


def test_totals_are_the_same_after_merges_and_reopening(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    entries = [
        failure_of(number) if number % 5 == 0 else entry_of(number, step=("note", "answer")[number % 2])
        for number in range(100)
    ]
    journal = Journal.open(folder)
    for start in range(0, 100, 2):
        for entry in entries[start : start + 2]:
            journal.append(entry)
        journal.flush()
        journal.merge()
        if start % 14 == 0:
            journal = Journal.open(folder)
    tokens = {
        step: sum(entry.answer.prompt_tokens for entry in entries if entry.step == step)
        for step in ("note", "answer")
    }
    expected = {
        "note": StepTotals(40, 20, 40 + 2 * 20, tokens["note"], 40 * 10 + 20 * 3, 25.0, 2.5),
        "answer": StepTotals(40, 0, 40, tokens["answer"], 400, 20.0, 0.0),
    }
    assert journal.totals() == Journal.open(folder).totals() == expected


def test_one_entry_without_a_price_makes_the_cost_of_its_step_unknown(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    entries = [entry_of(1), entry_of(2, cost_usd=None), entry_of(3), entry_of(4, step="answer")]
    journal = write_segments(folder, [entries])
    for found in (journal, Journal.open(folder)):
        assert found.totals()["note"].cost_usd is None
        assert found.totals()["answer"].cost_usd == 0.5


def test_every_file_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "journal"))
    journal = write_segments(folder, [[entry_of(number)] for number in range(MERGED_AT_ONCE + 2)])
    assert journal.merge()
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "journal").iterdir()}
    assert modes == {0o600}
    assert stat.S_IMODE((tmp_path / "journal").stat().st_mode) == 0o700


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


def is_found(journal: Journal, number: int) -> bool:
    return key_of(number) in journal and bool(journal.read([key_of(number)]))


def test_readers_find_every_entry_while_it_is_flushed_and_merged(tmp_path: Path) -> None:
    journal = Journal.open(Folder(str(tmp_path)))
    entries = [entry_of(number, "x" * 100) for number in range(3000)]
    told = [0]
    missed: list[int] = []
    is_over = threading.Event()

    def look() -> None:
        while not is_over.is_set():
            latest = told[0]
            newest = range(max(latest - 20, 0), latest)
            missed.extend(number for number in newest if not is_found(journal, number))

    def keep_durable() -> None:
        while not is_over.is_set():
            journal.flush()
            journal.merge()

    threads = [threading.Thread(target=work) for work in (look, look, keep_durable)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for number, entry in enumerate(entries):
            journal.append(entry)
            told[0] = number + 1
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(before)
    assert not missed
    journal.flush()
    assert contents_of(Journal.open(Folder(str(tmp_path))), entries) == entries


ASKED = Request("note", (Message("system", "Be brief."), Message("user", "Some report.")), 0.7, 500)


def test_the_same_content_has_the_same_key_whoever_asks() -> None:
    again = Request("note", (Message("system", "Be brief."), Message("user", "Some report.")), 0.7, 500)
    first = request_key("model", {"top_k": 5, "seed": 1}, ASKED)
    assert first == request_key("model", {"seed": 1, "top_k": 5}, again)
    assert first == request_key("model", {"seed": 1, "top_k": 5}, replace(again, is_urgent=True))
    program = (
        "from asclepius_ray.chat.exchange import Request, request_key\n"
        "from asclepius_ray.records import Message\n"
        "turns = (Message('system', 'Be brief.'), Message('user', 'Some report.'))\n"
        "print(request_key('model', {'top_k': 5, 'seed': 1}, Request('note', turns, 0.7, 500)).hex())\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ended.stdout.strip() == first.hex()


def test_any_change_of_what_an_answer_depends_on_changes_the_key() -> None:
    user = ASKED.messages[1]
    requests = [
        ASKED,
        replace(ASKED, step="question"),
        replace(ASKED, messages=(user,)),
        replace(ASKED, messages=(user, ASKED.messages[0])),
        replace(ASKED, messages=(ASKED.messages[0], Message("assistant", user.content))),
        replace(ASKED, messages=(ASKED.messages[0], Message("user", user.content + " "))),
        replace(ASKED, messages=(Message("system", "Be brief.Some report."), Message("user", ""))),
        replace(ASKED, temperature=0.71),
        replace(ASKED, max_tokens=501),
        replace(ASKED, accept_truncated=True),
        replace(ASKED, accept_empty=True),
    ]
    keys = [request_key("model", {}, request) for request in requests]
    keys += [request_key("other", {}, ASKED), request_key("model", {"seed": 1}, ASKED)]
    keys += [request_key("model", {"seed": 2}, ASKED), request_key("model", {"seed": "1"}, ASKED)]
    assert len(set(keys)) == len(keys)
    assert {len(key) for key in keys} == {32}
