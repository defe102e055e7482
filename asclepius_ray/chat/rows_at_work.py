"""The rows that one worker has begun, as far as the desk has to know of them.

The desk blames a row for the death of its worker, so it must know which rows were at work there; a new desk
learns of them from the worker.
"""

import asyncio
from collections.abc import Iterable

from asclepius_ray.chat.desk_messages import Said, Verdict


class RowsAtWork:
    """Row id → who waits for the desk's word on it, and whether the row was let in."""

    def __init__(self) -> None:
        self._waiters: dict[str, asyncio.Future[Verdict] | None] = {}
        self._admitted: dict[str, bool] = {}

    def begin(self, row_id: str, said: Said) -> "asyncio.Future[Verdict]":
        """Asks in the next message what is known of a row."""
        waiter = self._waiters[row_id] = asyncio.get_running_loop().create_future()
        said.rows_begun.append(row_id)
        return waiter

    def admit(self, row_id: str, is_alone: bool, said: Said) -> "asyncio.Future[Verdict]":
        """Tells in the next message that a row with deaths behind it begins now."""
        self._admitted[row_id] = is_alone
        said.rows_admitted.append((row_id, is_alone))
        # The answer to this one comes with the reply to the message that has both.
        return self.begin(row_id, said)

    def end(self, row_id: str, said: Said) -> None:
        self._waiters.pop(row_id, None)
        self._admitted.pop(row_id, None)
        # Of one message the desk reads the ends first: a row that has left may come back in it.
        said.rows_begun = [begun for begun in said.rows_begun if begun != row_id]
        said.rows_admitted = [admitted for admitted in said.rows_admitted if admitted[0] != row_id]
        said.rows_ended.append(row_id)

    @property
    def is_awaited(self) -> bool:
        """Whether the desk has not given its word on a row yet."""
        return any(waiter is not None for waiter in self._waiters.values())

    def take_verdicts(self, verdicts: Iterable[Verdict]) -> None:
        for verdict in verdicts:
            if (waiter := self._waiters.get(verdict.row_id)) is None:
                continue
            self._waiters[verdict.row_id] = None
            if verdict.deaths == 0:
                # To be told on a resync: the desk may hold a death against it by then.
                self._admitted.setdefault(verdict.row_id, False)
            if not waiter.done():
                waiter.set_result(verdict)

    def give_up(self, error: BaseException) -> None:
        """Whoever waits for the desk's word gets the error; the rows are at work still."""
        for row_id, waiter in self._waiters.items():
            if waiter is not None and not waiter.done():
                waiter.set_exception(error)
                self._waiters[row_id] = None

    def tell_all(self, said: Said) -> None:
        """Puts every row into a message to a desk that knows of none."""
        said.rows_begun = list(self._waiters)
        said.rows_admitted = list(self._admitted.items())
