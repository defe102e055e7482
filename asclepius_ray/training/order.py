"""Which rows make step k: a function of (seed, phase, step) and the number of rows alone. Pure.

Neither the number of workers nor the micro-batch has a say in it: they only divide what is given.
"""

import math
from functools import lru_cache

import numpy as np

PADDING_ROW = -1
"""A row of weight zero: it fills up the last micro-batches where the rows do not divide."""


def steps_per_epoch(num_rows: int, global_batch: int) -> int:
    return math.ceil(num_rows / global_batch)


def document_order(num_documents: int, seed: int, phase: int) -> list[int]:
    """The order in which a phase's documents are packed."""
    return _permutation(num_documents, (seed, phase, 0))


def step_rows(num_rows: int, global_batch: int, seed: int, phase: int, step: int) -> list[int]:
    """The rows of optimizer step `step` (from 0, over all epochs of the phase)."""
    epoch, batch = divmod(step, steps_per_epoch(num_rows, global_batch))
    order = _epoch_order(num_rows, seed, phase, epoch)
    return list(order[batch * global_batch : (batch + 1) * global_batch])


def accumulation_steps(global_batch: int, workers: int, micro_batch: int) -> int:
    """Forward passes of one worker in one optimizer step."""
    return math.ceil(global_batch / (workers * micro_batch))


def micro_batches(rows: list[int], count: int, workers: int, rank: int, micro_batch: int) -> list[list[int]]:
    """A worker's share of the rows as `count` micro-batches, filled up with padding rows."""
    padded = rows + [PADDING_ROW] * (count * workers * micro_batch - len(rows))
    starts = [(index * workers + rank) * micro_batch for index in range(count)]
    return [padded[start : start + micro_batch] for start in starts]


@lru_cache(maxsize=2)
def _epoch_order(num_rows: int, seed: int, phase: int, epoch: int) -> tuple[int, ...]:
    return tuple(_permutation(num_rows, (seed, phase, epoch + 1)))


def _permutation(count: int, key: tuple[int, int, int]) -> list[int]:
    # The seed may be negative in a run file; numpy's seeds may not.
    entropy = [key[0] & 0xFFFFFFFFFFFFFFFF, *key[1:]]
    order: list[int] = np.random.default_rng(entropy).permutation(count).tolist()
    return order
