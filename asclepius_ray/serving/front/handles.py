"""The way from the front to the replicas through Ray Serve's handles."""

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from asclepius_ray.serving.front.call import Call, Item
from asclepius_ray.serving.front.relay import ReplicaLostError

LOOK_SECONDS = 1.0
"""What runs is asked of Serve's controller no more often."""


class RunningReplicas:
    """How many replicas of each deployment of an application run."""

    def __init__(self, application: str) -> None:
        self._application = application
        self._found: dict[str, int] = {}
        self._found_at = float("-inf")
        self._looking = asyncio.Lock()

    async def of(self, deployment: str) -> int:
        async with self._looking:
            if time.monotonic() - self._found_at > LOOK_SECONDS:
                # In a thread: it asks the controller, and streams must not wait for that.
                self._found = await asyncio.to_thread(self._look)
                self._found_at = time.monotonic()
        return self._found.get(deployment, 0)

    def _look(self) -> dict[str, int]:
        try:
            application = serve.status().applications.get(self._application)
        except (RayError, RayServeException):
            # The controller is being started anew: what ran then runs still.
            return self._found
        deployments = application.deployments if application else {}
        return {name: status.replica_states.get("RUNNING", 0) for name, status in deployments.items()}


class HandleLine:
    """The replicas of one deployment."""

    def __init__(self, handle: Any, running: RunningReplicas) -> None:
        self._deployment: str = handle.deployment_name
        self._respond = handle.options(method_name="respond", stream=True)
        self._running = running

    async def ask(self, call: Call) -> AsyncGenerator[Item, None]:
        response = self._respond.remote(call)
        is_over = False
        try:
            async for item in response:
                yield item
            is_over = True
        except (RayError, RayServeException):
            raise ReplicaLostError from None
        finally:
            if not is_over:
                response.cancel()

    async def has_replica(self) -> bool:
        return await self._running.of(self._deployment) > 0
