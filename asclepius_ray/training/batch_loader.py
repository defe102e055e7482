"""Micro-batches that are ready when they are needed: a thread puts them together while the step computes.

The order is the caller's alone; the thread works on at most `AHEAD` of them beyond the one in use.
"""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from asclepius_ray.training.batches import Batch, PackedRows, collate

AHEAD = 4


class BatchLoader:
    """Collates for one worker and moves to its device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="collate")
        self._begun: deque[tuple[PackedRows, list[int], Future[Batch]]] = deque()
        self._waited_seconds = 0.0

    def load(
        self,
        packed: PackedRows,
        shares: Sequence[list[int]],
        following: tuple[PackedRows, Sequence[list[int]]] | None = None,
    ) -> Iterator[Batch]:
        """The batches of these rows on the device; `following` is what will most likely be asked for next."""
        wanted = deque((packed, share) for share in shares)
        if following is not None:
            wanted.extend((following[0], share) for share in following[1])
        self._keep_matching(wanted)
        for _ in shares:
            self._begin(wanted)
            started = time.monotonic()
            batch = self._begun.popleft()[2].result()
            self._waited_seconds += time.monotonic() - started
            self._begin(wanted)
            yield batch.to(self._device)

    def take_waited_seconds(self) -> float:
        """For how long the step has waited for its rows since the last call."""
        seconds, self._waited_seconds = self._waited_seconds, 0.0
        return seconds

    def _keep_matching(self, wanted: deque[tuple[PackedRows, list[int]]]) -> None:
        """Leaves of what is begun that which comes next anyway, and takes it off the list."""
        begun, self._begun = self._begun, deque()
        for packed, share, batch in begun:
            if wanted and wanted[0][0] is packed and wanted[0][1] == share:
                wanted.popleft()
                self._begun.append((packed, share, batch))
            else:
                break

    def _begin(self, wanted: deque[tuple[PackedRows, list[int]]]) -> None:
        while wanted and len(self._begun) < AHEAD:
            packed, share = wanted.popleft()
            self._begun.append((packed, share, self._pool.submit(self._put_together, packed, share)))

    def _put_together(self, packed: PackedRows, share: list[int]) -> Batch:
        batch = collate(packed, share)
        return batch.pinned() if self._device.type == "cuda" else batch
