"""Documents of many lengths → rows of the sequence length. Pure: lengths in, numbers of documents out.

A row holds whole documents only; the position ids restart with each, which is what keeps them
from seeing each other (see training/batches.py). How long the documents of each row are follows from all
lengths alone and is decided once; which of the equally long ones goes where is drawn anew in every epoch.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int32]
"""Numbers of documents or of rows."""

# Sixteenths that are added to the number of documents in a row before it is cut to a whole one: which of
# them makes the fewest rows depends on the lengths, so all are tried.
_ROUNDINGS = (0, 4, 6, 8)
# Two documents that fill the rest of a row are looked for up to so much below it, as a share of a row.
_PAIR_SLACK = 1 / 32


@dataclass(frozen=True)
class Packing:
    """Rows of whole documents: row r holds `documents[starts[r]:starts[r + 1]]`."""

    documents: Numbers
    starts: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def row(self, number: int) -> Numbers:
        return self.documents[self.starts[number] : self.starts[number + 1]]

    def sums(self, values: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
        """For each row the sum of what `values` says of its documents."""
        running = np.concatenate(([0], np.cumsum(values[self.documents], dtype=np.int64)))
        return running[self.starts[1:]] - running[self.starts[:-1]]

    def reordered(self, order: Numbers) -> "Packing":
        """The same rows, those of `order` one after the other."""
        sizes = np.diff(self.starts)[order]
        starts = np.concatenate(([0], np.cumsum(sizes, dtype=np.int64)))
        moved_by = np.repeat(self.starts[order] - starts[:-1], sizes)
        return Packing(self.documents[np.arange(starts[-1]) + moved_by], starts)


@dataclass(frozen=True)
class RowPlan:
    """Rows by the lengths of their documents: row r holds `lengths[starts[r]:starts[r + 1]]`."""

    lengths: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def filled(self, lengths: npt.NDArray[np.int32], order: Numbers) -> Packing:
        """The rows with documents of these lengths, equally long ones in the order of `order`."""
        places = np.argsort(self.lengths, kind="stable")
        documents = np.empty(len(places), dtype=np.int32)
        documents[places] = order[np.argsort(lengths[order], kind="stable")]
        return Packing(documents, self.starts)


def plan_rows(lengths: npt.NDArray[np.int32], sequence_length: int) -> RowPlan:
    """Few rows for documents of these lengths: a second of work for 158,114 of them.

    A row begins with the longest document that is left and gets as many more as keep the mean of the rest as
    it is, all about equally long and filling it to the end: what is left stays as easy to pack as the whole.
    A document longer than a row is a programming error.
    """
    for wrong in np.flatnonzero((lengths < 1) | (lengths > sequence_length))[:1]:
        raise ValueError(
            f"document {wrong} has {lengths[wrong]} tokens, a row holds 1 to {sequence_length} of them"
        )
    counts = np.bincount(lengths, minlength=sequence_length + 1).tolist()
    plans = [_plan(_Stock(counts, sequence_length), rounding) for rounding in _ROUNDINGS]
    rows = min(plans, key=len)
    sizes = np.fromiter((len(row) for row in rows), dtype=np.int64, count=len(rows))
    flat = np.fromiter((length for row in rows for length in row), dtype=np.int32, count=len(lengths))
    return RowPlan(flat, np.concatenate(([0], np.cumsum(sizes))))


def pack_in_order(lengths: npt.NDArray[np.int32], sequence_length: int) -> Packing:
    """Rows for documents that are read once, such as those that are held out."""
    return plan_rows(lengths, sequence_length).filled(lengths, np.arange(len(lengths), dtype=np.int32))


class _Stock:
    """How many documents of each length are left.

    Bit n of `_there` is set while there are any of length n, and bit L - n of `_mirrored`: what fits a
    room, or which two fill it, is found by a few operations on whole numbers of L bits.
    """

    def __init__(self, counts: list[int], sequence_length: int) -> None:
        self.sequence_length = sequence_length
        self.num_left = sum(counts)
        self.tokens_left = sum(length * count for length, count in enumerate(counts))
        self._counts = list(counts)
        self._there = self._mirrored = 0
        for length, count in enumerate(counts):
            if count:
                self._flip(length)

    def take(self, length: int) -> int:
        self._counts[length] -= 1
        self.num_left -= 1
        self.tokens_left -= length
        if not self._counts[length]:
            self._flip(length)
        return length

    def longest(self, limit: int) -> int:
        """The longest of at most `limit` tokens; 0 if there is none."""
        return max(0, (self._there & ((2 << limit) - 1)).bit_length() - 1)

    def pair(self, room: int) -> tuple[int, int] | None:
        """Two that fill the room, or nearly, and differ as little as possible."""
        for sum_of_both in range(room, room - int(_PAIR_SLACK * self.sequence_length), -1):
            both = self._there & (self._mirrored >> (self.sequence_length - sum_of_both))
            shorter = (both & ((2 << sum_of_both // 2) - 1)).bit_length() - 1
            if 2 * shorter == sum_of_both and self._counts[shorter] < 2:
                shorter = (both & ((1 << shorter) - 1)).bit_length() - 1
            if shorter > 0:
                return shorter, sum_of_both - shorter
        return None

    def _flip(self, length: int) -> None:
        self._there ^= 1 << length
        self._mirrored ^= 1 << (self.sequence_length - length)


def _plan(stock: _Stock, rounding: int) -> list[list[int]]:
    rows = []
    while stock.num_left:
        row = [stock.take(stock.longest(stock.sequence_length))]
        rows.append(row)
        room = stock.sequence_length - row[0]
        tokens, count = stock.tokens_left, stock.num_left
        wanted = (16 * room * count + rounding * tokens) // (16 * tokens) if tokens else 0
        while fitting := stock.longest(room):
            taken: tuple[int, ...] = (fitting,)
            if wanted == 2:
                taken = stock.pair(room) or taken
            elif wanted > 2:
                taken = (stock.longest(room // wanted) or fitting,)
            row += [stock.take(length) for length in taken]
            room -= sum(taken)
            wanted -= len(taken)
    return rows
