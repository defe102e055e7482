"""Who may be in progress in one process: rows that may have killed a worker run in small company."""

import asyncio
import math


class Company:
    """The rows in progress in this process; each names how many it may be among, itself included."""

    def __init__(self) -> None:
        self._rows: set[str] = set()
        self._limited: dict[str, float] = {}
        self._turn = asyncio.Lock()
        self._left = asyncio.Event()

    async def join(self, row_id: str, largest: float) -> None:
        """Waits until the row may begin; those behind it wait too, so that it is not passed for ever."""
        async with self._turn:
            while len(self._rows) + 1 > min([largest, *self._limited.values()]):
                self._left.clear()
                await self._left.wait()
            self._rows.add(row_id)
            if largest < math.inf:
                self._limited[row_id] = largest

    def leave(self, row_id: str) -> None:
        """The row is not in progress any more; of one that is not, nothing changes."""
        self._rows.discard(row_id)
        self._limited.pop(row_id, None)
        self._left.set()
