"""A worker's line to the desk where the run ends, or the line does: nobody waits for ever."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from desk_runs import run

from asclepius_ray.artifacts import Folder
from asclepius_ray.chat.desk import Desk
from asclepius_ray.chat.desk_link import DeskLink, RunTrouble
from asclepius_ray.chat.desk_messages import Heard, Said, Trouble
from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.chat.exchange import Completion, Entry
from asclepius_ray.chat.gate import Ending, Load, Outcome

LOAD = Load("note", 1000, 1000, 1, 500)
KEY = bytes(32)
HOURS_SECONDS = 7200.0


class DeskAtFaultError(Exception):
    """Stands for any error inside the desk."""


class Line:
    """A desk whose replies can be held back, and which can be at fault from then on."""

    def __init__(self, folder: Path) -> None:
        self.desk = Desk(Folder(str(folder)), Endpoint("http://localhost/v1", "m", max_in_flight=1))
        self.is_open = asyncio.Event()
        self.is_open.set()
        self.is_at_fault = False

    async def exchange(self, said: Said) -> Heard:
        await self.is_open.wait()
        if self.is_at_fault:
            raise DeskAtFaultError
        return await self.desk.exchange(said)


async def wait_for_place_and_pause(link: DeskLink) -> list["asyncio.Task[object]"]:
    """Two who have a permit: one waits hours for the endpoint, in the only place, the other for the place."""
    first = await link.enter(LOAD)
    waiting: list[asyncio.Task[object]] = [asyncio.ensure_future(link.enter(LOAD)) for _ in range(2)]
    while len(link._held) < 3:
        await asyncio.sleep(0.01)
    link.leave(first, Outcome(Ending.LIMITED, wait_seconds=HOURS_SECONDS))
    await asyncio.sleep(0.05)
    assert not any(one.done() for one in waiting)
    assert link._places.in_use == 1
    return waiting


async def errors_of(waiting: list["asyncio.Task[object]"]) -> list[type[BaseException]]:
    async with asyncio.timeout(10):
        found = await asyncio.gather(*waiting, return_exceptions=True)
    return [type(one) if isinstance(one, BaseException) else type(None) for one in found]


def test_a_wait_for_the_endpoint_or_for_a_place_is_cut_short_when_the_run_ends(tmp_path: Path) -> None:
    async def scenario() -> tuple[list[type[BaseException]], float]:
        line = Line(tmp_path)
        link, other = (DeskLink(line.exchange, name).start() for name in ("waiting", "other"))
        waiting = await wait_for_place_and_pause(link)
        waiting.append(asyncio.ensure_future(link.claim(KEY, LOAD)))
        # As after an error of the server that asks for so much.
        waiting.append(asyncio.ensure_future(link.pause(3600.0)))
        other.report(Trouble("endpoint", "no quota left"))
        started = time.monotonic()
        errors = await errors_of(waiting)
        seconds = time.monotonic() - started
        await asyncio.sleep(0.2)
        # No permit is left in use: nothing was sent with one.
        assert not link._held
        for one in (link, other):
            await one.close()
        await line.desk.close()
        return errors, seconds

    errors, seconds = run(scenario())
    assert errors == [RunTrouble] * 4
    assert seconds < 5.0


@pytest.mark.parametrize("end", ["trouble", "fault"])
def test_who_waits_for_a_place_does_not_wait_for_those_in_flight_when_the_run_ends(
    tmp_path: Path, end: str
) -> None:
    async def scenario() -> list[type[BaseException]]:
        line = Line(tmp_path)
        link = DeskLink(line.exchange, "worker").start()
        in_flight = await link.enter(LOAD)
        waiting: list[asyncio.Task[object]] = [asyncio.ensure_future(link.enter(LOAD))]
        while len(link._held) < 2:
            await asyncio.sleep(0.01)
        if end == "trouble":
            link.report(Trouble("endpoint", "no quota left"))
        line.is_at_fault = end == "fault"
        errors = await errors_of(waiting)
        # It is still out, and what it brings is taken in.
        link.leave(in_flight, Outcome(Ending.ANSWERED, 300, 100))
        if end == "trouble":
            await link.close()
        await line.desk.close()
        return errors

    assert run(scenario()) == [RunTrouble if end == "trouble" else DeskAtFaultError]


def entry_of(key: bytes) -> Entry:
    return Entry(key, "note", Completion("text", "stop", "m", 300, 100, 1), None)


LATER: dict[str, Callable[[DeskLink], Awaitable[object]]] = {
    "an answer": lambda link: link.claim(KEY, LOAD),
    "a further attempt": lambda link: link.enter(LOAD),
    "a row": lambda link: link.begin_row("row 9"),
    "a row with deaths behind it": lambda link: link.admit_row("row 8", is_alone=True),
    "durability": lambda link: link.durable(),
    "that all was heard": lambda link: link.all_heard(),
    "the end of the run": lambda link: link.in_trouble(),
}


def test_an_error_of_the_desk_reaches_everybody_who_waits_and_who_comes_later(tmp_path: Path) -> None:
    async def scenario() -> tuple[list[type[BaseException]], dict[str, list[type[BaseException]]]]:
        line = Line(tmp_path)
        link = DeskLink(line.exchange, "worker").start()
        waiting = await wait_for_place_and_pause(link)
        line.is_open.clear()
        link.deliver(entry_of(b"x" * 32))
        waiting += [asyncio.ensure_future(ask(link)) for ask in LATER.values()]
        await asyncio.sleep(0.2)
        assert not any(one.done() for one in waiting)
        line.is_at_fault = True
        line.is_open.set()
        first = await errors_of(waiting)
        later = {name: await errors_of([asyncio.ensure_future(ask(link))]) for name, ask in LATER.items()}
        await line.desk.close()
        return first, later

    first, later = run(scenario())
    assert first == [DeskAtFaultError] * (2 + len(LATER))
    assert later == {name: [DeskAtFaultError] for name in LATER}


def test_who_gives_up_waiting_breaks_the_conversation_of_nobody(tmp_path: Path) -> None:
    async def scenario() -> Entry:
        line = Line(tmp_path)
        link = DeskLink(line.exchange, "worker").start()
        line.is_open.clear()
        link.deliver(entry_of(b"x" * 32))
        impatient = [asyncio.ensure_future(wait()) for wait in (link.durable, link.all_heard)]
        impatient.append(asyncio.ensure_future(link.begin_row("row 1")))
        await asyncio.sleep(0.2)
        for one in impatient:
            one.cancel()
        line.is_open.set()
        async with asyncio.timeout(10):
            await link.durable()
            await link.all_heard()
            found = await link.claim(b"x" * 32, LOAD)
        await link.close()
        await line.desk.close()
        assert isinstance(found, Entry)
        return found

    assert run(scenario()) == entry_of(b"x" * 32)
