"""Loads the index of a journal: the tails of all segments, several at a time."""

import json
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from asclepius_ray.artifacts import Folder
from asclepius_ray.chat.journal.segment import (
    INDEX,
    Tail,
    decode_tail,
    index_of_scan,
    scan_records,
    tail_bytes,
)

logger = logging.getLogger(__name__)

LOADING_THREADS = 16
GUESSED_TAIL_BYTES = 1 << 16


@dataclass
class LoadedSegment:
    """One segment that counts; `index` has a row for each of its records."""

    name: str
    num_bytes: int
    index: "np.ndarray[Any, Any]"
    replaces: tuple[str, ...]
    is_damaged: bool


@dataclass
class Loaded:
    segments: list[LoadedSegment]
    """In the order in which they were written."""
    leftovers: list[str]
    """Replaced by a merged segment that is there; a kill came before they were removed."""


def load_segments(folder: Folder, files: Sequence[tuple[str, int]]) -> Loaded:
    """Reads what all segments tell, `files` being their names and sizes."""
    with ThreadPoolExecutor(LOADING_THREADS) as pool:
        segments = list(pool.map(lambda file: _load(folder, *file), sorted(files)))
    replaced = {name for segment in segments for name in segment.replaces}
    return Loaded(
        [segment for segment in segments if segment.name not in replaced],
        [segment.name for segment in segments if segment.name in replaced],
    )


def _load(folder: Folder, name: str, num_bytes: int) -> LoadedSegment:
    tail = _read_tail(folder, name, num_bytes)
    if tail is not None:
        return LoadedSegment(name, num_bytes, tail.index, tail.replaces, is_damaged=False)
    found = list(scan_records(folder.read_bytes(name)))
    index = index_of_scan(found) if found else np.zeros(0, INDEX)
    logger.warning("the journal's segment %s is damaged; %d records of it are readable", name, len(found))
    return LoadedSegment(name, num_bytes, index, (), is_damaged=True)


def _read_tail(folder: Folder, name: str, num_bytes: int) -> Tail | None:
    guessed = min(num_bytes, GUESSED_TAIL_BYTES)
    content = folder.read_range(name, num_bytes - guessed, guessed) if guessed else b""
    wanted = tail_bytes(content)
    if wanted is None or wanted > num_bytes:
        return None
    if wanted > len(content):
        content = folder.read_range(name, num_bytes - wanted, wanted)
    try:
        return decode_tail(content[-wanted:])
    except json.JSONDecodeError:
        return None
