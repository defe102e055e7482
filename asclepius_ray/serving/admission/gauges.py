"""The gauges of an engine's admission, set while anything is open and until the engine has freed it."""

import asyncio
from collections.abc import Callable, Mapping

from asclepius_ray.serving.meters import Meters

SET_SECONDS = 1.0
"""Between two words to the figures: Ray's exporter shows what it was told last, however long ago."""


class Gauges:
    """Tells the meters what `read` finds, under the model's name."""

    def __init__(
        self, meters: Meters, name: str, read: Callable[[], Mapping[str, float]], is_idle: Callable[[], bool]
    ) -> None:
        self._meters = meters
        self._name = name
        self._read = read
        self._is_idle = is_idle
        self._keeping: asyncio.Task[None] | None = None
        meters.before_scrape.append(self.set)

    def set(self) -> None:
        for name, value in self._read().items():
            self._meters.gauge(name, self._name, value)

    def keep(self) -> None:
        """Sets them from now on every second, in the running event loop, until nothing is open any more."""
        if self._keeping is None or self._keeping.done():
            self._keeping = asyncio.get_running_loop().create_task(self._keep())

    async def _keep(self) -> None:
        was_idle = False
        while True:
            is_idle = self._is_idle()
            self.set()
            # Once more after the last end: the engine drops a cancelled request in its next step.
            if is_idle and was_idle:
                return
            was_idle = is_idle
            await asyncio.sleep(SET_SECONDS)
