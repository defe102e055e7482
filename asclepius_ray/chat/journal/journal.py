"""The journal of paid answers: entries in, durable segments out, every answer found by its key.

One process writes at a time. What is appended is found at once, and durable after the next `flush`. A
segment is written once, under a name that no other writer can choose, and never changed; small ones are
merged into larger ones, which name those that they replace, so that a kill at any moment loses and
doubles nothing.
"""

import secrets
import threading
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from asclepius_ray.artifacts import Folder
from asclepius_ray.chat.exchange import Entry, Failure
from asclepius_ray.chat.journal.blocks import BlockReader
from asclepius_ray.chat.journal.loading import LoadedSegment, load_segments
from asclepius_ray.chat.journal.segment import (
    FRAME_BYTES,
    IS_FAILURE,
    IS_MARK,
    Mark,
    NumberedItem,
    decode_item,
    encode_items,
    join_segments,
    open_frame,
    seal,
    unseal,
)
from asclepius_ray.chat.journal.totals import StepTotals, add_entry, totals_of

SUFFIX = ".segment"
Array = np.ndarray[Any, Any]
VOID_MARK = "void_failures"
MERGED_AT_ONCE = 32
LARGEST_MERGED_BYTES = 1 << 27
_KEY_BYTES = 16
_OFFSET_BITS, _LENGTH_BITS = 40, 32


class Journal:
    """Use `open`. `flush` and `merge` may run in a thread beside the other calls."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._reader = BlockReader(folder)
        self._writer = secrets.token_hex(6)
        self._lock = threading.RLock()
        self._merging = threading.Lock()
        self._sequence = 0
        self._names: list[str] = []
        """Every segment that was ever used; a place holds the position of its segment here."""
        self._sizes: dict[str, int] = {}
        self._places: dict[bytes, int] = {}
        """Key (its first 16 bytes) → segment, offset and length in one number."""
        self._buffer: list[NumberedItem] = []
        self._buffered: dict[bytes, Entry] = {}
        self._failed_keys: set[bytes] = set()
        self._marks: list[Mark] = []
        self._totals: dict[str, StepTotals] = {}
        self._leftovers: list[str] = []
        self.num_appended = 0
        self.last_durable = 0
        """Entries appended to this object up to here are on storage."""
        self.damaged_segments = 0
        self.damaged_records = 0

    @classmethod
    def open(cls, folder: Folder) -> "Journal":
        """The journal in a folder; an empty one where there is none."""
        folder.make()
        journal = cls(folder)
        files = [(name, size) for name, size in folder.sizes().items() if name.endswith(SUFFIX)]
        loaded = load_segments(folder, files)
        journal._leftovers = loaded.leftovers
        journal._take_index(loaded.segments)
        return journal

    @property
    def num_segments(self) -> int:
        return len(self._sizes)

    def __contains__(self, key: bytes) -> bool:
        return key in self._buffered or key[:_KEY_BYTES] in self._places

    def __len__(self) -> int:
        with self._lock:
            return len(self._places) + len(self._buffered)

    def append(self, entry: Entry) -> int:
        """Takes an entry in and returns its number, to be compared with `last_durable`."""
        with self._lock:
            self._buffer.append((secrets.randbits(64), entry))
            self._buffered[entry.key] = entry
            add_entry(self._totals, entry)
            self.num_appended += 1
            return self.num_appended

    def append_mark(self, kind: str, values: dict[str, int]) -> None:
        with self._lock:
            mark = Mark(kind, dict(values))
            self._marks.append(mark)
            self._buffer.append((secrets.randbits(64), mark))

    def marks(self, kind: str) -> list[dict[str, int]]:
        """The values of all marks of a kind, in the order in which they were made."""
        return [mark.values for mark in self._marks if mark.kind == kind]

    def void_failures(self) -> None:
        """Failures up to here count as not bought; what they cost is still counted."""
        with self._lock:
            self.append_mark(VOID_MARK, {})
            self._buffered = {
                key: entry for key, entry in self._buffered.items() if not isinstance(entry.answer, Failure)
            }
            for key in self._failed_keys:
                self._places.pop(key, None)
            self._failed_keys.clear()

    def totals(self) -> dict[str, StepTotals]:
        return dict(self._totals)

    def read(self, keys: Iterable[bytes]) -> dict[bytes, Entry]:
        """The entries of those keys that are bought; one whose bytes are damaged is not."""
        found: dict[bytes, Entry] = {}
        for key in keys:
            if (entry := self._buffered.get(key)) is None:
                entry = self._read_stored(key)
            if entry is not None:
                found[key] = entry
        return found

    def flush(self) -> int:
        """Writes all that is not durable as one segment and returns the number of its records.

        An OSError where that fails; everything stays as it was then, to be flushed again.
        """
        with self._lock:
            items, num_appended = list(self._buffer), self.num_appended
            self._sequence += 1
            name = self._name_of(self._sequence)
        if not items:
            return 0
        segment = encode_items(items)
        content = seal(segment)
        self._folder.write_bytes(name, content)
        with self._lock:
            del self._buffer[: len(items)]
            self._sizes[name] = len(content)
            self._add_places(name, segment.index["offset"], segment.index["length"], items)
            self.last_durable = num_appended
        return len(items)

    def merge(self) -> bool:
        """Merges the oldest small segments of a size once there are 32 of them; False where there are not."""
        if not self._merging.acquire(blocking=False):
            return False
        try:
            self._remove_leftovers()
            chosen = self._choose_segments()
            if chosen:
                self._merge(chosen)
            return bool(chosen)
        finally:
            self._merging.release()

    def _take_index(self, segments: Sequence[LoadedSegment]) -> None:
        self.damaged_segments = sum(segment.is_damaged for segment in segments)
        self._sequence = max((int(segment.name.split("-")[0]) for segment in segments), default=0)
        for segment in segments:
            self._names.append(segment.name)
            self._sizes[segment.name] = segment.num_bytes
        if not segments:
            return
        index = np.concatenate([segment.index for segment in segments])
        owner = np.repeat(np.arange(len(segments)), [len(segment.index) for segment in segments])
        # A record that stands in two segments, as after a kill in the middle of a merge, counts once.
        _ids, first = np.unique(index["entry_id"], return_index=True)
        first.sort()
        index, owner = index[first], owner[first]
        self._totals = totals_of(index)
        self._read_marks(segments, index, owner)
        self._take_places(index, owner)

    def _read_marks(self, segments: Sequence[LoadedSegment], index: Array, owner: Array) -> None:
        for row in np.flatnonzero(index["kind"] == IS_MARK):
            name = segments[owner[row]].name
            payload = self._read_record(name, int(index["offset"][row]), int(index["length"][row]))
            if payload is None:
                self.damaged_records += 1
                continue
            _number, mark = decode_item(payload)
            assert isinstance(mark, Mark)
            self._marks.append(mark)
            if mark.kind == VOID_MARK:
                before = index["kind"][:row]
                before[before == IS_FAILURE] = IS_MARK

    def _take_places(self, index: Array, owner: Array) -> None:
        is_entry = index["kind"] != IS_MARK
        index, owner = index[is_entry], owner[is_entry]
        keys = index["key"].tobytes()
        columns = (owner.tolist(), index["offset"].tolist(), index["length"].tolist(), index["kind"].tolist())
        for row, (segment, offset, length, kind) in enumerate(zip(*columns, strict=True)):
            key = keys[32 * row : 32 * row + _KEY_BYTES]
            self._places[key] = _pack(segment, offset, length)
            self._note_failure(key, kind == IS_FAILURE)

    def _note_failure(self, key: bytes, is_failure: bool) -> None:
        if is_failure:
            self._failed_keys.add(key)
        else:
            self._failed_keys.discard(key)

    def _add_places(self, name: str, offsets: Array, lengths: Array, items: Sequence[NumberedItem]) -> None:
        """The items of a new segment are found there from now on."""
        self._names.append(name)
        segment = len(self._names) - 1
        for (_number, item), offset, length in zip(items, offsets.tolist(), lengths.tolist(), strict=True):
            if isinstance(item, Mark) or self._buffered.get(item.key) is not item:
                # A mark, or a failure that was declared void while it was being written.
                continue
            key = item.key[:_KEY_BYTES]
            # In this order: a reader, who takes no lock, finds it in the one or in the other.
            self._places[key] = _pack(segment, offset, length)
            del self._buffered[item.key]
            self._note_failure(key, isinstance(item.answer, Failure))

    def _read_stored(self, key: bytes) -> Entry | None:
        while True:
            place = self._places.get(key[:_KEY_BYTES])
            if place is None:
                return None
            segment, offset, length = _unpack(place)
            try:
                payload = self._read_record(self._names[segment], offset, length)
            except OSError as error:
                # Merged away since the place was looked up: it is found in the merged segment now. A bucket
                # has other words for that than a folder.
                if self._places.get(key[:_KEY_BYTES]) != place:
                    continue
                if isinstance(error, FileNotFoundError):
                    break
                raise
            if payload is None:
                break
            _number, item = decode_item(payload)
            # Two keys may begin alike.
            return item if isinstance(item, Entry) and item.key == key else None
        with self._lock:
            self._places.pop(key[:_KEY_BYTES], None)
            self.damaged_records += 1
        return None

    def _read_record(self, name: str, offset: int, length: int) -> bytes | None:
        return open_frame(self._reader.read(name, offset - FRAME_BYTES, length + FRAME_BYTES))

    def _choose_segments(self) -> list[str]:
        """The oldest neighbours worth merging: 32 of which none is larger than all others together.

        Neighbours, so that the order of the entries stays; of about one size, so that an entry is
        written anew only a few times however long the run is.
        """
        with self._lock:
            sizes = sorted(self._sizes.items())
        for start in range(len(sizes) - MERGED_AT_ONCE + 1):
            window = sizes[start : start + MERGED_AT_ONCE]
            total, largest = sum(size for _, size in window), max(size for _, size in window)
            if total <= LARGEST_MERGED_BYTES and 2 * largest <= total:
                return [name for name, _size in window]
        return []

    def _merge(self, names: list[str]) -> None:
        parts = [unseal(self._folder.read_bytes(name)) for name in names]
        joined = join_segments(parts)
        content = seal(joined, names)
        # It takes the place of its last source in the order of time.
        merged = f"{names[-1].split('-')[0]}-{self._writer}m{secrets.token_hex(2)}{SUFFIX}"
        self._folder.write_bytes(merged, content)
        numbers = {name: position for position, name in enumerate(self._names)}
        sources = np.repeat([numbers[name] for name in names], [len(part.index) for part in parts])
        before = np.concatenate([part.index["offset"] for part in parts])
        with self._lock:
            self._names.append(merged)
            self._sizes[merged] = len(content)
            for name in names:
                del self._sizes[name]
            self._move_places(joined.index, sources, before)
            self._leftovers += names
        self._remove_leftovers()

    def _move_places(self, index: Array, sources: Array, before: Array) -> None:
        """What was found in a source is found in the merged segment from now on."""
        segment, keys = len(self._names) - 1, index["key"].tobytes()
        columns = (sources.tolist(), before.tolist(), index["offset"].tolist(), index["length"].tolist())
        for row, (source, old_offset, offset, length) in enumerate(zip(*columns, strict=True)):
            key = keys[32 * row : 32 * row + _KEY_BYTES]
            if self._places.get(key) == _pack(source, old_offset, length):
                self._places[key] = _pack(segment, offset, length)

    def _remove_leftovers(self) -> None:
        while self._leftovers:
            name = self._leftovers[-1]
            self._folder.delete(name)
            self._reader.forget(name)
            self._leftovers.pop()

    def _name_of(self, sequence: int) -> str:
        return f"{sequence:010d}-{self._writer}{SUFFIX}"


def _pack(segment: int, offset: int, length: int) -> int:
    return (segment << _OFFSET_BITS | offset) << _LENGTH_BITS | length


def _unpack(place: int) -> tuple[int, int, int]:
    length = place & ((1 << _LENGTH_BITS) - 1)
    offset = (place >> _LENGTH_BITS) & ((1 << _OFFSET_BITS) - 1)
    return place >> (_OFFSET_BITS + _LENGTH_BITS), offset, length
