"""The journal of paid answers on a disk and in a bucket: what was durable once is found again."""

import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from journal_entries import contents_of, entry_of, failure_of, key_of, write_segments

from asclepius_ray.artifacts import Folder
from asclepius_ray.chat.exchange import Completion, Request, request_key
from asclepius_ray.chat.journal.journal import MERGED_AT_ONCE, Journal
from asclepius_ray.chat.journal.totals import StepTotals
from asclepius_ray.records import Message


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
        "note": StepTotals(40, 20, 40 + 2 * 20, tokens["note"], 40 * 10 + 20 * 3, 25.0, 25.0, 2.5),
        "answer": StepTotals(40, 0, 40, tokens["answer"], 400, 20.0, 20.0, 0.0),
    }
    assert journal.totals() == Journal.open(folder).totals() == expected


def test_one_entry_without_a_price_makes_the_cost_of_its_step_unknown(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    entries = [entry_of(1), entry_of(2, cost_usd=None), entry_of(3), entry_of(4, step="answer")]
    journal = write_segments(folder, [entries])
    for found in (journal, Journal.open(folder)):
        assert found.totals()["note"].cost_usd is None
        assert found.totals()["note"].known_usd == 1.0
        assert found.totals()["answer"].cost_usd == found.totals()["answer"].known_usd == 0.5


def test_every_file_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "journal"))
    journal = write_segments(folder, [[entry_of(number)] for number in range(MERGED_AT_ONCE + 2)])
    assert journal.merge()
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "journal").iterdir()}
    assert modes == {0o600}
    assert stat.S_IMODE((tmp_path / "journal").stat().st_mode) == 0o700


@dataclass(frozen=True)
class StruckFolder(Folder):
    """A folder in which something else happens just before a record is read."""

    strikes: list[Callable[[], object]] = field(default_factory=list)

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        if self.strikes:
            self.strikes.pop()()
        return super().read_range(name, offset, length)


def test_an_entry_is_found_whose_segment_is_merged_away_as_it_is_read(folder: Folder) -> None:
    struck = StruckFolder(folder.uri)
    entries = [entry_of(number) for number in range(MERGED_AT_ONCE)]
    journal = write_segments(struck, [[entry] for entry in entries])
    before = set(folder.names())
    struck.strikes.append(journal.merge)
    assert journal.read([key_of(5)]) == {key_of(5): entry_of(5)}
    assert len(before - set(folder.names())) == MERGED_AT_ONCE, "nothing was removed beneath the reader"
    assert contents_of(journal, entries) == entries
    assert journal.damaged_records == 0


def test_an_entry_whose_segment_is_gone_for_good_is_not_bought_and_is_counted(folder: Folder) -> None:
    journal = write_segments(folder, [[entry_of(1)], [entry_of(2)]])
    folder.delete(folder.names()[0])
    assert journal.read([key_of(1), key_of(2)]) == {key_of(2): entry_of(2)}
    assert key_of(1) not in journal
    assert journal.damaged_records == 1


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
            # What is older is merged, and removed where it was.
            older = range(0, latest, max(latest // 20, 1))
            missed.extend(number for number in (*newest, *older) if not is_found(journal, number))

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
