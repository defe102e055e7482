"""Which rows make step k: a function of (seed, phase, step) and the documents' lengths alone. Pure.

Neither the number of workers nor the micro-batch has a say in it: they only divide what is given. No step
depends on an earlier one, so that a training goes on at step 100,000 as fast as at step 10.
"""

import math

import numpy as np
import numpy.typing as npt

from asclepius_ray.tokens.packing import Packing, RowPlan

PADDING_ROW = -1
"""A row of weight zero: it fills up the last micro-batches where the rows do not divide."""


def pack_epoch(plan: RowPlan, lengths: npt.NDArray[np.int32], seed: int, phase: int, epoch: int) -> Packing:
    """The rows of one epoch in their order; another epoch puts other documents together, in as many rows."""
    # The seed may be negative in a run file; numpy's seeds may not.
    draw = np.random.default_rng([seed & 0xFFFFFFFFFFFFFFFF, phase, epoch])
    packing = plan.filled(lengths, draw.permutation(len(lengths)).astype(np.int32))
    # The plan begins with the longest documents.
    return packing.reordered(draw.permutation(len(packing)).astype(np.int32))


def steps_per_epoch(num_rows: int, global_batch: int) -> int:
    """Every row is read; the last step of an epoch may have fewer of them than the others."""
    return math.ceil(num_rows / global_batch)


def batch_rows(num_rows: int, global_batch: int, batch: int) -> list[int]:
    """The rows of one step of an epoch."""
    return list(range(batch * global_batch, min((batch + 1) * global_batch, num_rows)))


def accumulation_steps(global_batch: int, workers: int, micro_batch: int) -> int:
    """Forward passes of one worker in one optimizer step."""
    return math.ceil(global_batch / (workers * micro_batch))


def micro_batches(rows: list[int], count: int, workers: int, rank: int, micro_batch: int) -> list[list[int]]:
    """A worker's share of the rows as `count` micro-batches, filled up with padding rows."""
    padded = rows + [PADDING_ROW] * (count * workers * micro_batch - len(rows))
    starts = [(index * workers + rank) * micro_batch for index in range(count)]
    return [padded[start : start + micro_batch] for start in starts]
