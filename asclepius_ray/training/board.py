"""What workers, driver and Ray Train's controller tell each other while `fit()` blocks: one small actor."""

from typing import Any


class Board:
    """Holds the events that the driver has not read yet, and what the workers are asked to do."""

    def __init__(self) -> None:
        self._events: list[dict[str, Any]] = []
        self._wishes: set[str] = set()

    def push(self, event: dict[str, Any]) -> None:
        """Adds an event for the driver."""
        if event["event"] == "start":
            # A new group of workers: that is what was wished for.
            self._wishes.discard("leave")
        self._events.append(event)

    def drain(self) -> list[dict[str, Any]]:
        events, self._events = self._events, []
        return events

    def stop(self) -> None:
        """Asks the workers to save and end."""
        self._wishes.add("stop")

    def regroup(self) -> None:
        """Asks the workers to save and leave, so that they are started anew in another number."""
        self._wishes.add("leave")

    def wishes(self) -> list[str]:
        """Words of `control.Control`."""
        return sorted(self._wishes)
