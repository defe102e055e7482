"""Entries of a journal, how tests write them, and what of them is found."""

import hashlib
from collections.abc import Sequence

from asclepius_ray.artifacts import Folder
from asclepius_ray.chat.exchange import Completion, Entry, Failure
from asclepius_ray.chat.journal.journal import Journal
from asclepius_ray.chat.replies import FailureReason


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
