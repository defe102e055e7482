"""A desk and workers that buy notes from an offline teacher, in the test's own process."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from asclepius_ray.artifacts import Folder
from asclepius_ray.chat.buyer import Buyer
from asclepius_ray.chat.config import OFFLINE_MODEL, PriceConfig
from asclepius_ray.chat.desk import Desk
from asclepius_ray.chat.desk_link import DeskLink, RunTrouble
from asclepius_ray.chat.desk_messages import Heard, Said
from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.chat.exchange import Completion, Failure, Request
from asclepius_ray.chat.gate import Patience
from asclepius_ray.chat.offline.server import OfflineTeacher
from asclepius_ray.prompts.rendering import render_note_prompt

Value = TypeVar("Value")
PRICE = PriceConfig(input_usd_per_million_tokens=10.0, output_usd_per_million_tokens=10.0)


def endpoint_of(teacher: OfflineTeacher, **settings: Any) -> Endpoint:
    defaults: dict[str, Any] = {"timeout_seconds": 20.0, "max_attempts": 2, "is_offline": True}
    return Endpoint(teacher.base_url, OFFLINE_MODEL, **(defaults | settings))


def request_note(number: int) -> Request:
    report = f"A {20 + number % 60}-year-old man, case {number}, came with chest pain and got aspirin 100 mg."
    return Request("note", tuple(render_note_prompt(report)), temperature=1.0, max_tokens=500)


def run(work: Coroutine[Any, Any, Value]) -> Value:
    async def limited() -> Value:
        async with asyncio.timeout(60):
            return await work

    return asyncio.run(limited())


async def ask_all(
    endpoint: Endpoint,
    folder: Path,
    requests: Sequence[Request],
    workers: int = 1,
    exchange: Callable[[Desk], Callable[[Said], Awaitable[Heard]]] = lambda desk: desk.exchange,
) -> list[Completion | Failure | RunTrouble]:
    """Each worker asks all requests; the answers of the first worker, then of the second, …"""
    desk = Desk(Folder(str(folder)), endpoint)
    buyers = [
        Buyer(endpoint, DeskLink(exchange(desk), f"worker {number}").start()) for number in range(workers)
    ]
    asked = [
        buyer.complete(request, Patience(endpoint.max_retry_seconds))
        for buyer in buyers
        for request in requests
    ]
    try:
        answers = await asyncio.gather(*asked, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, RunTrouble):
                raise answer
        return [answer for answer in answers if isinstance(answer, Completion | Failure | RunTrouble)]
    finally:
        for buyer in buyers:
            await buyer.close()
        await desk.close()
