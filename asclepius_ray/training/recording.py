"""What rank 0 writes down of a training: its metric lines into the log, and word of them to the driver."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import TrainingError
from asclepius_ray.metric_log import MetricLog

Tell = Callable[[dict[str, Any]], None]


class Recording:
    """The lines from `position` on; on other ranks than 0 it does nothing. A context, left at the end."""

    def __init__(self, training: Folder, rank: int, position: int, tell: Tell) -> None:
        self._tell = tell
        self._log: MetricLog | None = None
        self._uri = training.uri
        if rank == 0:
            self._log = MetricLog(training, position)
            if self._log.missing:
                text = (
                    f"{self._log.missing} of {position} bytes of the metrics before the checkpoint are gone"
                )
                tell({"event": "say", "text": text})

    def __enter__(self) -> "Recording":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._log is not None:
            self._log.__exit__(kind, error, trace)

    @property
    def position(self) -> int:
        """Bytes so far: what a checkpoint of this moment has to remember (rank 0 writes its state)."""
        return self._log.position if self._log is not None else 0

    def add(self, line: Mapping[str, Any]) -> None:
        if self._log is not None:
            with self._storage_named():
                self._log.append(line)
            self._tell({"event": "metrics", "line": dict(line)})

    def sync(self) -> None:
        """Before a checkpoint is written: whoever goes on from it finds every line that it has counted."""
        if self._log is not None:
            with self._storage_named():
                self._log.sync()

    @contextmanager
    def _storage_named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TrainingError(
                f"the metrics could not be written to {self._uri}: {error.strerror or type(error).__name__}; "
                "make room there, or mend access to it, and run the same command again"
            ) from error
