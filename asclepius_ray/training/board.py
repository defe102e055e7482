"""What the workers tell the driver while `fit()` blocks: one small actor between them."""

from typing import Any


class Board:
    """Holds the events that the driver has not read yet, and its wish to stop."""

    def __init__(self) -> None:
        self._events: list[dict[str, Any]] = []
        self._stop = False

    def push(self, event: dict[str, Any]) -> bool:
        """Adds an event of rank 0; True if the driver asks to stop."""
        self._events.append(event)
        return self._stop

    def drain(self) -> list[dict[str, Any]]:
        events, self._events = self._events, []
        return events

    def stop(self) -> None:
        self._stop = True
