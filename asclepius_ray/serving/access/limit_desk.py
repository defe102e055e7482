"""The one place that keeps the limits of keys over all replicas of an application: a small Ray actor.

The first replica that meets a key with limits starts it; it belongs to no replica, is started anew where
it is lost, and ends itself when no replica has spoken for `IDLE_SECONDS`. It outlives a redeploy; replicas
of another version of this package speak to a desk of their own.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import ray

from asclepius_ray.serving.access.allowance import LimitRefusal
from asclepius_ray.serving.access.keys import KeyLimits
from asclepius_ray.serving.access.limit_book import Grant, LimitBook
from asclepius_ray.serving.access.limit_link import DeskAway

NAMESPACE = "asclepius-limits"
PATIENCE_SECONDS = 1.0
"""A request waits no longer for the desk than that, and then goes on with this replica's part."""
IDLE_SECONDS = 60.0
MOST_CALLS_AT_A_TIME = 1000

logger = logging.getLogger(__name__)


def desk_name(application_name: str) -> str:
    """The actor's name: code of one version alone meets its calls."""
    return f"{application_name}-{version('asclepius-ray')}"


class LimitDesk:
    """The actor: a LimitBook on one clock."""

    def __init__(self, idle_seconds: float) -> None:
        self._idle_seconds = idle_seconds
        self._book = LimitBook()
        self._heard_at = time.monotonic()
        self._ending: asyncio.Task[None] | None = None

    async def take(
        self, replica_id: str, grant_id: str, grant: Grant, limits: KeyLimits
    ) -> LimitRefusal | None:
        return self._book.take(replica_id, grant_id, grant, limits, self._hear())

    async def settle(self, replica_id: str, grant_id: str, used_tokens: int) -> None:
        self._book.settle(replica_id, grant_id, used_tokens, self._hear())

    async def beat(self, replica_id: str, is_open: dict[str, Grant], pending: frozenset[str]) -> int:
        self._book.beat(replica_id, is_open, pending, self._hear())
        return self._book.num_replicas

    async def leave(self, replica_id: str) -> None:
        self._book.leave(replica_id, self._hear())

    def _hear(self) -> float:
        if self._ending is None:
            self._ending = asyncio.get_running_loop().create_task(self._end_when_idle())
        self._heard_at = time.monotonic()
        return self._heard_at

    async def _end_when_idle(self) -> None:
        while time.monotonic() - self._heard_at < self._idle_seconds:
            await asyncio.sleep(self._idle_seconds / 10)
        # Not by leaving the process: Ray would start one that ended by itself anew.
        ray.kill(ray.get_runtime_context().current_actor)


class RayDesk:
    """Reaches the desk of an application; starts it at the first call."""

    def __init__(self, application_name: str, idle_seconds: float = IDLE_SECONDS) -> None:
        self._name = desk_name(application_name)
        self._idle_seconds = idle_seconds
        self._actor: Any = None
        self._is_failing = False

    async def take(
        self, replica_id: str, grant_id: str, grant: Grant, limits: KeyLimits
    ) -> LimitRefusal | None:
        refusal: LimitRefusal | None = await self._call("take", replica_id, grant_id, grant, limits)
        return refusal

    async def settle(self, replica_id: str, grant_id: str, used_tokens: int) -> None:
        await self._call("settle", replica_id, grant_id, used_tokens)

    async def beat(self, replica_id: str, is_open: Mapping[str, Grant], pending: frozenset[str]) -> int:
        num_replicas: int = await self._call("beat", replica_id, dict(is_open), pending)
        return num_replicas

    async def leave(self, replica_id: str) -> None:
        await self._call("leave", replica_id)

    async def _call(self, method: str, *arguments: object) -> Any:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                if self._actor is None:
                    # In a thread: it asks the cluster's store, and others' streams must not wait for that.
                    self._actor = await asyncio.to_thread(_find_or_start, self._name, self._idle_seconds)
                answer = await getattr(self._actor, method).remote(*arguments)
        except TimeoutError:
            raise DeskAway from None
        except ray.exceptions.RayTaskError as error:
            self._tell_failure(error)
            raise DeskAway from error
        except ray.exceptions.RayError as error:
            # It may have ended for good when nobody spoke to it: the next call finds or starts another.
            self._actor = None
            raise DeskAway from error
        self._is_failing = False
        return answer

    def _tell_failure(self, error: ray.exceptions.RayTaskError) -> None:
        """Once, until it answers again."""
        if not self._is_failing:
            logger.error("the desk of limits fails (%s): it counts as away", type(error.cause).__name__)
        self._is_failing = True


def _find_or_start(name: str, idle_seconds: float) -> Any:
    actor: Any = ray.remote(LimitDesk)
    return actor.options(
        name=name,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        num_cpus=0,
        max_restarts=-1,
        max_concurrency=MOST_CALLS_AT_A_TIME,
    ).remote(idle_seconds)
