"""What a replica behind the front observes, carried to the front: nobody else reaches its figures."""

from collections import deque

from asclepius_ray.serving.meters import Figure, Observation, Record


class CarriedFigures:
    """A mirror that keeps what is observed until the next part of an answer takes it along.

    Gauges are left out: those of several replicas cannot be added up, and between two answers nobody would
    hear of them.
    """

    def __init__(self) -> None:
        self._waiting: deque[Observation] = deque()

    def open(self, figure: Figure) -> Record:
        if figure.kind == "gauge":
            return lambda value, labels: None
        return lambda value, labels: self._waiting.append(Observation(figure.name, value, labels))

    def take(self) -> tuple[Observation, ...]:
        """All that was observed since it was called last."""
        return tuple(self._waiting.popleft() for _ in range(len(self._waiting)))
