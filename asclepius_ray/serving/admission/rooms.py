"""The batches of one engine, each with places of its own, as admission keeps count of them; pure."""

from collections.abc import Mapping

from asclepius_ray.serving.admission.occupancy import Occupancy, Places
from asclepius_ray.serving.admission.ticket import Ticket


class Rooms:
    """One room for all models, and one for each of those that have a batch of their own."""

    def __init__(self, places: Places, own_places: Mapping[str, Places]) -> None:
        self._common = Occupancy(places)
        self._own = {model: Occupancy(own) for model, own in own_places.items()}
        self._all = (self._common, *self._own.values())

    def of(self, model: str) -> Occupancy:
        return self._own.get(model, self._common)

    @property
    def held_tokens(self) -> int:
        return sum(room.held_tokens for room in self._all)

    @property
    def queued_tokens(self) -> int:
        return sum(room.queued_tokens for room in self._all)

    @property
    def running_streams(self) -> int:
        return sum(room.running_streams for room in self._all)

    @property
    def num_running(self) -> int:
        return sum(len(room.running) for room in self._all)

    @property
    def num_queued(self) -> int:
        return sum(len(room.queue) for room in self._all)

    @property
    def running(self) -> list[Ticket]:
        return [ticket for room in self._all for ticket in room.running]

    @property
    def filled_share(self) -> float:
        """Of the fullest room, of its streams or its cache, whichever is scarcer."""
        return max(room.filled_share for room in self._all)
