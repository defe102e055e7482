"""Places in flight of one worker: a semaphore whose size changes while it is in use."""

import asyncio
from collections import deque


class Places:
    """At most `size` holders at a time; those who wait are served in order."""

    def __init__(self) -> None:
        self.size = 0
        self.in_use = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def is_wanted(self) -> bool:
        """Whether somebody waits for one."""
        return any(not turn.done() for turn in self._waiting)

    async def acquire(self) -> None:
        if self.in_use < self.size and not self._waiting:
            self.in_use += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release()
            raise

    def release(self) -> None:
        self.in_use -= 1
        self._serve()

    def resize(self, size: int) -> None:
        """Fewer places take effect as holders leave."""
        self.size = size
        self._serve()

    def _serve(self) -> None:
        while self._waiting and self.in_use < self.size:
            turn = self._waiting.popleft()
            if not turn.done():
                self.in_use += 1
                turn.set_result(None)
