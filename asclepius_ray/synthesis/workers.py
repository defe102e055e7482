"""Blocks of case reports → blocks of results in input order, walked by Ray actors side by side.

Each actor runs an event loop of its own under Ray Data's synchronous calls: with an asynchronous call
Ray Data lets rows wait for one another and freezes the loop when its consumer pauses.
"""

import asyncio
import functools
import logging
import math
import os
import threading
from collections.abc import Coroutine, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext

from asclepius_ray.artifacts import Folder
from asclepius_ray.chat.buyer import Buyer
from asclepius_ray.chat.desk_link import DeskLink, RunTrouble
from asclepius_ray.chat.desk_messages import HANDED_BACK, Trouble, Verdict
from asclepius_ray.chat.finder import Finder, NotBought
from asclepius_ray.chat.row_deaths import largest_company
from asclepius_ray.records import CaseReport
from asclepius_ray.synthesis.company import Company
from asclepius_ray.synthesis.desk_actor import exchange_with, find_with, let_in_flight_end
from asclepius_ray.synthesis.own_node import until_drained, warn_if_it_fails
from asclepius_ray.synthesis.question_pool import QuestionPool, read_pool_if_frozen, wait_for_pool
from asclepius_ray.synthesis.reports import Reports
from asclepius_ray.synthesis.walk import RESULT_SCHEMA, RowResult, Walk

Value = TypeVar("Value")

CONCURRENT_BLOCKS = 64
"""Calls of one actor at the same time: a block ends with its slowest row, and must not hold up the rest."""

# An error of the whole run travels as a block of its own: raised inside a call, it would reach the user
# below Ray Data's own stack traces, and be printed by every worker.
_TROUBLE = [("trouble_kind", pa.string()), ("trouble_message", pa.string())]
_PENDING = [("pending_key", pa.binary()), ("pending_request", pa.binary())]
_BLOCK_SCHEMA = pa.schema(list(RESULT_SCHEMA) + [pa.field(name, kind) for name, kind in _TROUBLE + _PENDING])


@dataclass(frozen=True)
class Crew:
    """What every worker is given."""

    walk: Walk
    desk: Any
    """The desk's actor."""
    root: Folder
    cpus: float = 0.1
    """What Ray keeps for one of them."""
    sends: bool = True
    """False: rows go as far as the journal carries them, and tell what they need next."""


class RowWalker:
    """The callable of one actor; its calls run in several threads and share one loop and one client."""

    def __init__(self, crew: Crew) -> None:
        self._walk = crew.walk
        self._root = crew.root
        self._company = Company()
        crew.walk.demands.prepare()
        self._loop = asyncio.new_event_loop()
        self._pool: asyncio.Task[QuestionPool] | None = None
        threading.Thread(target=self._loop.run_forever, daemon=True, name="chat").start()
        here = ray.get_runtime_context()
        # The same over all lives of this actor, so that the desk sees at once that one has ended.
        self._buyer = self._wait_for(_open_buyer(crew, here.get_actor_id()))
        self._finder = None if crew.sends else Finder(crew.walk.teacher, find_with(crew.desk))
        self._num_blocks = 0
        leaving = asyncio.run_coroutine_threadsafe(self._leave_with_node(here.get_node_id()), self._loop)
        leaving.add_done_callback(warn_if_it_fails)

    def __call__(self, reports: pa.Table) -> pa.Table:
        """Walks all rows of the block at once; the desk holds back what is too many."""
        try:
            rows = self._wait_for(self._walk_rows(reports.to_pylist()))
        except RunTrouble as stop:
            trouble = stop.trouble
            if trouble.kind == HANDED_BACK:
                # Until the process ends: Ray Data then gives the block to another.
                threading.Event().wait()
            values = (trouble.kind, trouble.message)
            row = {name: value for (name, _kind), value in zip(_TROUBLE, values, strict=True)}
            return pa.Table.from_pylist([row], schema=_BLOCK_SCHEMA)
        return pa.Table.from_pylist(rows, schema=_BLOCK_SCHEMA)

    async def _leave_with_node(self, node_id: str) -> None:
        """Hands all rows back before this machine goes: nothing is bought again, and no row is blamed."""
        await until_drained(node_id)
        link = self._buyer.link
        link.hand_back()
        while self._num_blocks:
            await asyncio.sleep(0.05)
        try:
            await link.all_heard()
        finally:
            # Also where there is no desk any more: the calls wait for this. As an error of the system, since
            # Ray starts an actor that leaves by itself nowhere else.
            os._exit(1)

    async def _walk_rows(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The results, once all that was bought for them is durable."""
        self._buyer.link.require_run()
        self._num_blocks += 1
        try:
            return await self._walk_block(rows)
        finally:
            self._num_blocks -= 1

    async def _walk_block(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        walk = self._walk_row if self._finder is None else self._find_row
        walks = [walk(CaseReport.from_row(row)) for row in rows]
        # All come to their end, also in trouble: what is in flight is paid for and comes in.
        results = await asyncio.gather(*walks, return_exceptions=True)
        await self._buyer.link.durable()
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return [result for result in results if not isinstance(result, BaseException)]

    async def _find_row(self, report: CaseReport) -> dict[str, Any]:
        assert self._finder is not None
        try:
            return (await self._walk.walk_row(report, self._finder, self._pool_if_frozen)).to_row()
        except NotBought as missing:
            pending = missing.pending
            row = self._walk.leave_row(report).to_row()
            return row | {
                "pending_key": pending and pending.key,
                "pending_request": pending and pending.packed,
            }

    async def _pool_if_frozen(self) -> QuestionPool:
        pool = await asyncio.to_thread(read_pool_if_frozen, self._root)
        if pool is None:
            raise NotBought(None)
        return pool

    async def _walk_row(self, report: CaseReport) -> dict[str, Any]:
        try:
            verdict = await self._buyer.link.begin_row(report.row_id)
            if verdict.is_quarantined:
                return self._walk.give_up_row(report).to_row()
            await self._join(verdict)
            pool = functools.partial(self._pool_beside, verdict)
            return (await self._walk.walk_row(report, self._buyer, pool)).to_row()
        finally:
            self._leave(report.row_id)

    async def _join(self, verdict: Verdict) -> None:
        """Waits until the row may be in progress here, and tells the desk of one with a past."""
        largest = largest_company(verdict.deaths)
        await self._company.join(verdict.row_id, largest)
        if verdict.deaths:
            await self._buyer.link.admit_row(verdict.row_id, is_alone=largest == 1)

    def _leave(self, row_id: str) -> None:
        self._company.leave(row_id)
        self._buyer.link.end_row(row_id)

    async def _pool_beside(self, verdict: Verdict) -> QuestionPool:
        """The question pool; a row that waits for it holds up no other, such as one of the pilot round."""
        if self._pool is not None and self._pool.done():
            return self._pool.result()
        self._leave(verdict.row_id)
        try:
            return await self._question_pool()
        finally:
            await self._buyer.link.begin_row(verdict.row_id)
            await self._join(verdict)

    async def _question_pool(self) -> QuestionPool:
        if self._pool is None:
            self._pool = asyncio.get_running_loop().create_task(wait_for_pool(self._root))
        trouble = asyncio.ensure_future(self._buyer.link.in_trouble())
        try:
            await asyncio.wait({self._pool, trouble}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            trouble.cancel()
        return self._pool.result() if self._pool.done() else trouble.result()

    def _wait_for(self, work: Coroutine[Any, Any, Value]) -> Value:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


async def _open_buyer(crew: Crew, name: str) -> Buyer:
    return Buyer(crew.walk.teacher, DeskLink(exchange_with(crew.desk), name).start())


def walk_reports(reports: Reports, crew: Crew, workers: int) -> Generator[pa.Table, None, None]:
    """Yields the results of each block as soon as it is done, in whatever order.

    Raises RunTrouble where the run as a whole has to end. Closing the generator ends the workers.
    """
    with _quiet_context():
        dataset = reports.blocks.dataset().map_batches(
            RowWalker, **_map_options(crew, workers, len(reports.blocks))
        )
        # Without prefetching: it holds a block back until the next one comes, and what the other rows wait
        # for may be in it.
        batches = dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
        with closing(iter(batches)) as tables:
            for table in tables:
                try:
                    block = _read_block(table)
                except RunTrouble:
                    # Here, since leaving this kills the workers, with answers on their way that are paid for.
                    let_in_flight_end(crew.desk, crew.walk.teacher.timeout_seconds)
                    raise
                yield block


def order_blocks(blocks: Iterable[pa.Table], first_rows: Iterable[int]) -> Iterator[pa.Table]:
    """Yields the blocks in input order; `first_rows` has the row_index of each block's first row, in order.

    A block that comes early waits in Ray's object store, which spills to disk: while one row waits for
    its teacher that may be all that the workers do in the meantime.
    """
    held: dict[int, ray.ObjectRef[pa.Table]] = {}
    awaited = iter(first_rows)
    next_row = next(awaited, None)
    for block in blocks:
        first_row = block["row_index"][0].as_py()
        if first_row != next_row:
            held[first_row] = ray.put(block)
            continue
        yield block
        next_row = next(awaited, None)
        while next_row in held:
            yield ray.get(held.pop(next_row))
            next_row = next(awaited, None)


def read_rows(blocks: Iterable[pa.Table]) -> Iterator[RowResult]:
    for block in blocks:
        for row in block.to_pylist():
            yield RowResult.from_row({name: row[name] for name in RESULT_SCHEMA.names})


def _map_options(crew: Crew, workers: int, num_blocks: int) -> dict[str, Any]:
    # The worker that is up first leaves the others their part of a small input.
    concurrent_blocks = min(CONCURRENT_BLOCKS, math.ceil(num_blocks / workers))
    return {
        "fn_constructor_args": (crew,),
        "batch_size": None,
        "batch_format": "pyarrow",
        "num_cpus": crew.cpus,
        "compute": ActorPoolStrategy(
            size=workers,
            max_concurrent_calls_per_actor=concurrent_blocks,
            max_tasks_in_flight_per_actor=concurrent_blocks,
            enable_true_multi_threading=True,
        ),
    }


def _read_block(table: pa.Table) -> pa.Table:
    kind = table["trouble_kind"][0].as_py()
    if kind is not None:
        raise RunTrouble(Trouble(kind, table["trouble_message"][0].as_py()))
    return table.drop_columns([name for name, _kind in _TROUBLE])


@contextmanager
def _quiet_context() -> Iterator[None]:
    """Ray Data without its own progress bars, and without its end after 30 minutes of a waiting teacher."""
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = -1
    # A thread for every block that is under way, to learn of a worker's memory what nobody reads.
    context.memory_usage_poll_interval_s = None
    # It warns of bars that are switched off on purpose.
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)
    with DataContext.current(context):
        yield
