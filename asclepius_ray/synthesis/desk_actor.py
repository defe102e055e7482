"""The desk as one Ray actor of the job, and how the driver and the workers reach it."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, TypeVar

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from asclepius_ray.artifacts import Folder
from asclepius_ray.chat.desk import Desk
from asclepius_ray.chat.desk_link import AWAY_SECONDS, DeskAway, RunTrouble
from asclepius_ray.chat.desk_messages import Heard, Said, Trouble
from asclepius_ray.chat.desk_snapshot import DeskSnapshot
from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.chat.exchange import Entry

Reply = TypeVar("Reply")

CLOSE_TIMEOUT_SECONDS = 120.0
LOOK_SECONDS, LOOKS = 0.5, 4
"""An answer that has come is told with its worker's next word, within a second or so."""
HURRIED_SECONDS = 1.5
"""`ray job stop` leaves three seconds before it kills."""


class DeskActor(Desk):
    """A desk that knows whether Ray has started it in the place of one that was lost."""

    def __init__(self, folder: Folder, endpoint: Endpoint) -> None:
        is_heir = ray.get_runtime_context().was_current_actor_reconstructed
        super().__init__(folder, endpoint, is_heir=is_heir)


@contextlib.contextmanager
def open_desk(folder: Folder, endpoint: Endpoint) -> Iterator[Any]:
    """Yields the handle of a desk that has loaded its journal; what it holds is durable at the end.

    It starts on the driver's node, and on another one if that is lost.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    actor = ray.remote(DeskActor).options(
        num_cpus=0, max_restarts=-1, max_concurrency=1000, scheduling_strategy=here
    )
    desk = actor.remote(folder, endpoint)
    try:
        _require_opened(desk)
        yield desk
    except BaseException as error:
        _flush_in_trouble(desk, isinstance(error, KeyboardInterrupt))
        raise
    else:
        ray.get(desk.close.remote(), timeout=CLOSE_TIMEOUT_SECONDS)
    finally:
        ray.kill(desk)


async def ask_desk(ask: Callable[[], Awaitable[Reply]]) -> Reply:
    """The desk's reply to what may be asked twice; one that was lost is asked again when it is back."""
    while True:
        try:
            return await ask()
        except ray.exceptions.RayTaskError:
            raise
        except ray.exceptions.RayError as error:
            _require_heir(error)
            await asyncio.sleep(AWAY_SECONDS)


def find_with(desk: Any) -> Callable[[Sequence[bytes]], Awaitable[dict[bytes, Entry]]]:
    """The desk's `find` for a worker that sends nothing; a journal that cannot be read ends the run."""

    async def find(keys: Sequence[bytes]) -> dict[bytes, Entry]:
        try:
            return await ask_desk(lambda: desk.find.remote(list(keys)))
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, OSError):
                raise RunTrouble(Trouble.of_storage(error.cause)) from None
            raise

    return find


def _flush_in_trouble(desk: Any, is_in_a_hurry: bool) -> None:
    """Keeps what is not durable yet, if that is still possible; the first error is the one to be told."""
    seconds = HURRIED_SECONDS if is_in_a_hurry else CLOSE_TIMEOUT_SECONDS
    with contextlib.suppress(ray.exceptions.RayError, OSError):
        ray.get(desk.close.remote(), timeout=seconds)


def let_in_flight_end(desk: Any, longest_seconds: float) -> None:
    """Waits for the answers that are on their way, and for what their workers then have to say of them."""
    until = time.monotonic() + longest_seconds
    num_looks_in_a_row = 0
    while num_looks_in_a_row < LOOKS and time.monotonic() < until:
        time.sleep(LOOK_SECONDS)
        try:
            snapshot: DeskSnapshot = ray.get(desk.snapshot.remote())
        except ray.exceptions.RayError as error:
            if _has_no_heir(error):
                return
            # It was lost, and is being started anew.
            num_looks_in_a_row = 0
            continue
        num_looks_in_a_row = 0 if snapshot.num_permits else num_looks_in_a_row + 1


def exchange_with(desk: Any) -> Callable[[Said], Awaitable[Heard]]:
    """The desk's `exchange` for a link; a desk that was lost is away until Ray has started it anew."""

    async def exchange(said: Said) -> Heard:
        try:
            heard: Heard = await desk.exchange.remote(said)
        except ray.exceptions.RayTaskError:
            raise
        except ray.exceptions.RayError as error:
            _require_heir(error)
            raise DeskAway from None
        return heard

    return exchange


def _require_opened(desk: Any) -> None:
    try:
        ray.get(desk.snapshot.remote())
    except ray.exceptions.RayActorError as error:
        if not _has_no_heir(error):
            raise
        message = f"the journal cannot be opened ({_reason_in(error)})"
        raise RunTrouble(Trouble("storage", message)) from None


def _reason_in(error: ray.exceptions.RayError) -> str:
    """What the desk has said as it failed to open; Ray keeps it as the last line of a text."""
    last_line = str(error).strip().splitlines()[-1].strip()
    kind, colon, reason = last_line.partition(": ")
    return reason if colon and " " not in kind else last_line


def _has_no_heir(error: ray.exceptions.RayError) -> bool:
    """Whether the desk was lost for good: Ray starts none anew that has raised an error as it opened."""
    return isinstance(error, ray.exceptions.RayActorError) and error.actor_init_failed


def _require_heir(error: ray.exceptions.RayError) -> None:
    if _has_no_heir(error):
        message = f"the desk was lost, and another one cannot read the journal ({_reason_in(error)})"
        raise RunTrouble(Trouble("storage", message)) from None
