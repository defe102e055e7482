"""Blocks of case reports → results in input order, walked by Ray actors side by side.

Each actor runs an event loop of its own under Ray Data's synchronous calls: with an asynchronous call
Ray Data lets rows wait for one another and freezes the loop when its consumer pauses.
"""

import asyncio
import logging
import math
import threading
from collections.abc import Coroutine, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Any, TypeVar

import pyarrow as pa
import ray.data
from ray.data import ActorPoolStrategy, DataContext

from asclepius_ray.chat.client import ChatClient
from asclepius_ray.errors import EndpointError
from asclepius_ray.records import CaseReport
from asclepius_ray.synthesis.reports import LARGEST_BLOCK_ROWS, Reports
from asclepius_ray.synthesis.walk import RESULT_SCHEMA, RowResult, Walk

Value = TypeVar("Value")

CPUS_PER_WORKER = 0.1
UNLIMITED_IN_FLIGHT = 1024
LEAST_CONCURRENT_BLOCKS = 8

# An error of the whole run travels as a block of its own: raised inside a call, it would reach the user
# below Ray Data's own stack traces, and be printed by every worker.
_TROUBLE_COLUMN = "run_trouble"
_BLOCK_SCHEMA = RESULT_SCHEMA.append(pa.field(_TROUBLE_COLUMN, pa.string()))


class RowWalker:
    """The callable of one actor; its calls run in several threads and share one loop and one client."""

    def __init__(self, walk: Walk, max_in_flight: int) -> None:
        self._walk = walk
        self._trouble = ""
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True, name="chat").start()
        self._client = self._wait_for(_open_client(walk, max_in_flight))

    def __call__(self, reports: pa.Table) -> pa.Table:
        """Walks all rows of the block at once; the client holds back what is too many."""
        if not self._trouble:
            try:
                rows = self._wait_for(self._walk_rows(reports.to_pylist()))
                return pa.Table.from_pylist([row.to_row() for row in rows], schema=_BLOCK_SCHEMA)
            except EndpointError as error:
                self._trouble = str(error)
        return pa.Table.from_pylist([{_TROUBLE_COLUMN: self._trouble}], schema=_BLOCK_SCHEMA)

    async def _walk_rows(self, rows: list[dict[str, Any]]) -> list[RowResult]:
        walks = [
            asyncio.ensure_future(self._walk.walk_row(CaseReport.from_row(row), self._client)) for row in rows
        ]
        try:
            return await asyncio.gather(*walks)
        finally:
            for walk in walks:
                walk.cancel()

    def _wait_for(self, work: Coroutine[Any, Any, Value]) -> Value:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


async def _open_client(walk: Walk, max_in_flight: int) -> ChatClient:
    return ChatClient(walk.teacher, max_in_flight)


def walk_reports(reports: Reports, walk: Walk, workers: int) -> Generator[list[RowResult], None, None]:
    """Yields the results of each block as soon as it is done, in whatever order.

    An EndpointError of a worker is raised as it is. Closing the generator ends the workers.
    """
    with _quiet_context():
        dataset = ray.data.from_arrow_refs(reports.blocks).map_batches(
            RowWalker, **_map_options(walk, workers, len(reports.blocks))
        )
        with closing(iter(dataset.iter_batches(batch_size=None, batch_format="pyarrow"))) as tables:
            for table in tables:
                yield _read_block(table)


def order_rows(blocks: Iterable[list[RowResult]], first_rows: Iterable[int]) -> Iterator[RowResult]:
    """Yields the rows in input order; `first_rows` has the row_index of each block's first row, in order.

    A block that comes early is held until its turn. While one row waits for its teacher that is what all
    workers do in the meantime, about 5 kB a row.
    """
    held: dict[int, list[RowResult]] = {}
    awaited = iter(first_rows)
    next_row = next(awaited, None)
    for block in blocks:
        held[block[0].row_index] = block
        while next_row in held:
            yield from held.pop(next_row)
            next_row = next(awaited, None)


def _map_options(walk: Walk, workers: int, num_blocks: int) -> dict[str, Any]:
    """Splits the teacher's limit among the workers, so that all together never pass it."""
    limit = walk.teacher.max_in_flight
    workers = min(workers, limit) if limit else workers
    per_worker = limit // workers
    wanted = max(LEAST_CONCURRENT_BLOCKS, (per_worker or UNLIMITED_IN_FLIGHT) // LARGEST_BLOCK_ROWS + 1)
    # The worker that is up first leaves the others their part of a small input.
    concurrent_blocks = min(wanted, math.ceil(num_blocks / workers))
    return {
        "fn_constructor_args": (walk, per_worker),
        "batch_size": None,
        "batch_format": "pyarrow",
        "num_cpus": CPUS_PER_WORKER,
        "compute": ActorPoolStrategy(
            size=workers,
            max_concurrent_calls_per_actor=concurrent_blocks,
            max_tasks_in_flight_per_actor=concurrent_blocks,
            enable_true_multi_threading=True,
        ),
    }


def _read_block(table: pa.Table) -> list[RowResult]:
    rows = table.to_pylist()
    trouble = rows[0][_TROUBLE_COLUMN]
    if trouble is not None:
        raise EndpointError(trouble)
    for row in rows:
        del row[_TROUBLE_COLUMN]
    return [RowResult.from_row(row) for row in rows]


@contextmanager
def _quiet_context() -> Iterator[None]:
    """Ray Data without its own progress bars, and without its end after 30 minutes of a waiting teacher."""
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = -1
    # It warns of bars that are switched off on purpose.
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)
    with DataContext.current(context):
        yield
