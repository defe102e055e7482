"""Events of the workers → the progress line, Prometheus and trackers; and the sums over a training's lines.

The lines themselves are written by the workers (metric_log.py): nothing of the training is lost with its
driver, which holds no more than the last few of them.
"""

import statistics
import time
from collections import deque
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from asclepius_ray.progress import Progress
from asclepius_ray.training.metrics import Metrics
from asclepius_ray.training.trackers import Tracker, scalars

RECENT_STEPS = 20
"""What the time left is reckoned from."""


class Recorder:
    """Shows a training while it runs; a context that closes the trackers. `run` names it in the metrics.

    A metric line holds its phase ("notes" or "instructions"), the phase's number and the optimizer steps done
    over all phases. For a step it goes on with loss, learning rate and the figures of meters.py; for a
    validation with its loss, perplexity and seconds.
    """

    def __init__(self, progress: Progress, run: str, trackers: Sequence[Tracker] = ()) -> None:
        self._progress = progress
        self._checkpoint_seconds = 0.0
        """How long the last checkpoint took until it was whole."""
        self._validation_seconds = 0.0
        self._trackers = trackers
        self._metrics = Metrics(run, time.time())
        self._total = 0
        self._seconds: deque[float] = deque(maxlen=RECENT_STEPS)

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._metrics.end()
        for tracker in self._trackers:
            tracker.close()

    @property
    def seconds_to_stop(self) -> float:
        """In how long the workers will have ended a step or a validation, the last upload, and one more."""
        step_seconds = max(self._seconds, default=0.0)
        return 2 * step_seconds + self._validation_seconds + 3 * self._checkpoint_seconds

    def say(self, text: str) -> None:
        self._progress.say(f"training: {text}")

    def take(self, events: Sequence[Mapping[str, Any]]) -> None:
        for event in events:
            self._take(event)

    def _take(self, event: Mapping[str, Any]) -> None:
        match event["event"]:
            case "start":
                self._begin(event)
            case "metrics":
                self._show(event["line"])
            case "checkpoint":
                self._checkpoint_seconds = event["seconds"]
                self._metrics.saved(event["total_steps"], event["seconds"], time.time())
            case "not_finite":
                self._metrics.not_finite()
            case "say":
                self.say(event["text"])

    def _begin(self, event: Mapping[str, Any]) -> None:
        self._total = event["total_steps"]
        self._seconds.clear()
        self._progress.begin("training", self._total)
        self.say(f"{event['workers']} workers begin after step {event['step']}")
        self._progress.update(event["step"], self._total)
        self._metrics.begin(event["workers"], event["step"], self._total, time.time())
        for tracker in self._trackers:
            tracker.begin(event["step"])

    def _show(self, line: Mapping[str, Any]) -> None:
        values = scalars(line)
        for tracker in self._trackers:
            tracker.log(line["step"], values)
        if "loss" not in line:
            self._validation_seconds = line["seconds"]
            self._metrics.set(line, None, time.time())
            return
        self._seconds.append(line["seconds"])
        seconds_left = statistics.median(self._seconds) * (self._total - line["step"])
        self._metrics.set(line, seconds_left, time.time())
        detail = (
            f"{line['phase']}, loss {line['loss']:.3f}, {line['tokens_per_second']:,.0f} tokens/s, "
            f"{spoken_time(seconds_left)} left"
        )
        self._progress.update(line["step"], self._total, detail)


def spoken_time(seconds: float) -> str:
    """As short as one needs it: "40 s", "12 min", "3 h 5 min"."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def summarize(lines: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The counts of the training's manifest, and one entry a phase: losses before, during and after."""
    steps = [line for line in lines if "loss" in line]
    counts = {"steps": len(steps), "tokens": sum(line["tokens"] for line in steps)}
    numbers = sorted({line["phase_number"] for line in lines})
    return counts, [_phase([line for line in lines if line["phase_number"] == number]) for number in numbers]


def _phase(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    steps = [line for line in lines if "loss" in line]
    validations = [line["validation_loss"] for line in lines if "validation_loss" in line]
    phase = {"phase": lines[0]["phase"], "validation_loss_before": validations[0]}
    if steps:
        phase |= {"first_loss": steps[0]["loss"], "last_loss": steps[-1]["loss"], "steps": len(steps)}
    return {**phase, "validation_loss_after": validations[-1]}
