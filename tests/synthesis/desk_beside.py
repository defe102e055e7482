"""A desk and its workers in the test's own process: real HTTP and a real journal, without Ray around it."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from asclepius_ray.artifacts import Folder
from asclepius_ray.chat.buyer import Buyer
from asclepius_ray.chat.desk import Desk
from asclepius_ray.chat.desk_link import DeskLink
from asclepius_ray.records import CaseReport
from asclepius_ray.synthesis.question_pool import QuestionPool
from asclepius_ray.synthesis.walk import RowResult, Walk


def reports_named(num_rows: int) -> list[CaseReport]:
    return [
        CaseReport(row, f"{row}-1", row, f"{row}-1", f"report<{row}>", None, "") for row in range(num_rows)
    ]


async def no_pool() -> QuestionPool:
    return QuestionPool()


def walk_rows(walk: Walk, reports: Sequence[CaseReport], folder: Path) -> list[RowResult]:
    """Walks all rows at once with one worker; what it bought is in the journal at `folder`."""

    async def walk_all() -> list[RowResult]:
        desk = Desk(Folder(str(folder)), walk.teacher)
        buyer = Buyer(walk.teacher, DeskLink(desk.exchange, "worker").start())
        try:
            return list(await asyncio.gather(*(walk.walk_row(report, buyer, no_pool) for report in reports)))
        finally:
            await buyer.close()
            await desk.close()

    return asyncio.run(walk_all())
