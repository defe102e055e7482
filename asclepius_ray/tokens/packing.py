"""Documents of many lengths → rows of the sequence length. Pure: lengths in, indices out.

A row holds whole documents only; the position ids restart with each, which is what keeps them
from seeing each other (see training/batches.py).
"""

from collections.abc import Sequence

OPEN_ROWS = 64
"""Rows that are still looked at for room; keeps packing linear in the number of documents."""


def pack_documents(lengths: Sequence[int], sequence_length: int) -> list[list[int]]:
    """Puts every document into the first open row with room, in the order given.

    Returns the indices of each row's documents. A document longer than a row is a programming error.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    first_open = 0
    for index, length in enumerate(lengths):
        if not 0 < length <= sequence_length:
            raise ValueError(f"document {index} has {length} tokens, a row holds {sequence_length}")
        for row in range(first_open, len(rows)):
            if room[row] >= length:
                rows[row].append(index)
                room[row] -= length
                break
        else:
            rows.append([index])
            room.append(sequence_length - length)
            first_open = max(first_open, len(rows) - OPEN_ROWS)
    return rows
