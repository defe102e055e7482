"""Notes that say nearly the same as an earlier one: MinHash over runs of five words, by datasketch.

datasketch's own index keeps two and a half kilobytes a note, which 160,000 notes would add to the driver;
here it is 160 bytes: of each hash the 16 lowest bits, and the places of the notes in tables of fixed size.
"""

import zlib
from typing import Any

import numpy as np
from datasketch import MinHash, MinHashLSH

SHINGLE_WORDS = 5
NUM_PERMUTATIONS = 64
INDEXED_BELOW = 0.2
"""The index finds half of what is as similar as it is told, and nearly all that is so much more so."""
_EMPTY = 0xFFFFFFFF
_SLOTS_PER_NOTE = 2

Signature = np.ndarray[Any, np.dtype[np.uint16]]
Table = np.ndarray[Any, np.dtype[np.uint32]]


class EarlierNotes:
    """The notes that were kept so far; holds hashes, no text."""

    def __init__(self, min_similarity: float, most_notes: int) -> None:
        """`min_similarity` is the Jaccard similarity of the sets of word runs, 0 < it <= 1.

        It is estimated, with a standard error of 0.04.
        """
        self._least_equal = min_similarity * NUM_PERMUTATIONS
        self._bands = _bands(min_similarity)
        self._num_notes = 0
        self._signatures = np.zeros((most_notes, NUM_PERMUTATIONS), np.uint16)
        num_slots = 1 << (_SLOTS_PER_NOTE * most_notes).bit_length()
        self._tables = np.full((len(self._bands), num_slots), _EMPTY, np.uint32)

    def add_if_new(self, note: str) -> bool:
        """Whether no earlier note is so similar; only then it is remembered."""
        signature = _sign(note)
        free_slots = []
        for table, band in zip(self._tables, self._bands, strict=True):
            places, free_slot = _probe(table, signature[band])
            if places and (self._signatures[places] == signature).sum(axis=1).max() >= self._least_equal:
                return False
            free_slots.append(free_slot)
        for table, free_slot in zip(self._tables, free_slots, strict=True):
            table[free_slot] = self._num_notes
        self._signatures[self._num_notes] = signature
        self._num_notes += 1
        return True


def _probe(table: Table, band: Signature) -> tuple[list[int], int]:
    """The notes in the slots from where one with this band would be, and the empty slot behind them."""
    places = []
    slot = zlib.crc32(band.tobytes()) % len(table)
    while (place := int(table[slot])) != _EMPTY:
        places.append(place)
        slot = (slot + 1) % len(table)
    return places, slot


def _bands(min_similarity: float) -> list[slice]:
    """Parts of a signature of which similar notes have at least one in common."""
    if min_similarity >= 1:
        return [slice(0, NUM_PERMUTATIONS)]
    chosen = MinHashLSH(threshold=max(min_similarity - INDEXED_BELOW, 0.1), num_perm=NUM_PERMUTATIONS)
    return [slice(number * chosen.r, (number + 1) * chosen.r) for number in range(chosen.b)]


def _sign(note: str) -> Signature:
    words = note.lower().split()
    minhash = MinHash(num_perm=NUM_PERMUTATIONS, seed=1)
    last = max(1, len(words) - SHINGLE_WORDS + 1)
    minhash.update_batch({" ".join(words[start : start + SHINGLE_WORDS]).encode() for start in range(last)})
    signature: Signature = minhash.hashvalues.astype(np.uint16)
    return signature
