"""A journal of very many entries, written by the journal itself, and what it takes to load it."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass

from asclepius_ray.artifacts import Folder
from asclepius_ray.chat.exchange import Completion, Entry
from asclepius_ray.chat.journal.journal import Journal

STEPS = ("note", "question", "answer")
WORD_BYTES = 600
LOAD = """
import json, sys, time
import psutil
from asclepius_ray.artifacts import Folder
from asclepius_ray.chat.journal.journal import Journal

process = psutil.Process()
before = process.memory_info().rss
started = time.monotonic()
journal = Journal.open(Folder(sys.argv[1]))
seconds = time.monotonic() - started
mib = (process.memory_info().rss - before) / 2**20
numbers = [0, 1, len(journal) // 2, len(journal) - 1]
found = journal.read([number.to_bytes(32, "little") for number in numbers])
completions = sum(step.completions for step in journal.totals().values())
print(json.dumps([seconds, mib, len(journal), journal.num_segments, len(found), completions]))
"""


@dataclass(frozen=True)
class Loaded:
    seconds: float
    mib: float
    """What the process has grown by."""
    num_entries: int
    num_objects: int
    num_found: int
    """Of four that were read back."""
    num_completions: int


def entry_of(number: int) -> Entry:
    answer = Completion("x" * (number % WORD_BYTES), "stop", "model", 700, 300, 1)
    return Entry(number.to_bytes(32, "little"), STEPS[number % 3], answer, 0.001)


def write_journal(folder: Folder, num_entries: int, entries_per_segment: int, merges: bool = False) -> None:
    """Without merges, which go on beside a run, the objects are as many as they can be."""
    journal = Journal.open(folder)
    for number in range(num_entries):
        journal.append(entry_of(number))
        if (number + 1) % entries_per_segment == 0:
            journal.flush()
            if merges:
                journal.merge()
    journal.flush()


def load_in_a_new_process(folder: Folder) -> Loaded:
    ended = subprocess.run(
        [sys.executable, "-c", LOAD, folder.uri],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
    )
    return Loaded(*json.loads(ended.stdout))
