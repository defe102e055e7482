"""The figures of a training as Prometheus metrics, set by the driver from what rank 0 tells it."""

from collections.abc import Mapping
from typing import Any

from asclepius_ray.gauges import Figure, Gauges

OF_LINES = (
    Figure("step", "Optimizer steps done, over all phases."),
    Figure("loss", "Mean loss per target of the last step."),
    Figure("validation_loss", "Mean loss per target of the held-out rows, at the last validation."),
    Figure("perplexity", "The exponential of the validation loss."),
    Figure("learning_rate", "The rate of the last step."),
    Figure("gradient_norm", "Norm of the last step's gradient, before it was clipped."),
    Figure("tokens", "Real tokens of the last step, over all workers."),
    Figure("tokens_per_second", "Real tokens a second over all workers; padding is not counted."),
    Figure("padding_share", "Share of the positions that hold no token."),
    Figure("data_wait_share", "Share of the last step that rank 0 waited for its rows."),
    Figure("checkpoint_blocked_share", "Share of the time that rank 0 stood still for a checkpoint."),
    Figure(
        "model_flops_utilisation",
        "Share of the GPUs' arithmetic that is used; absent where it is not known.",
    ),
    Figure("host_memory_gib", "Resident memory of rank 0."),
    Figure("device_memory_gib", "Peak of the memory allocated on rank 0's GPU."),
)
_FIGURES = (
    *OF_LINES,
    Figure("active", "1 while workers are wanted, 0 afterwards."),
    Figure("workers", "Workers that train at present."),
    Figure("planned_steps", "Optimizer steps in all, over all phases."),
    Figure("seconds_left", "Time left at the present rate."),
    Figure(
        "last_step_timestamp_seconds",
        "When a step or a validation was finished last; at first, when workers were wanted.",
    ),
    Figure("non_finite_steps", "Steps whose loss or gradient was no number; the training ends with it."),
    Figure("checkpoint_step", "The step of the newest checkpoint that is whole."),
    Figure(
        "checkpoint_timestamp_seconds",
        "When the newest checkpoint became whole; at first, when the workers began.",
    ),
    Figure("checkpoint_seconds", "How long the newest checkpoint took until it was whole."),
)


class Metrics:
    """Gauges named `ray_asclepius_training_…`, set by the driver."""

    def __init__(self, run: str, now_unix: float) -> None:
        self._gauges = Gauges("training", run, _FIGURES)
        self._non_finite = 0
        self._gauges.set("active", 1.0)
        self._gauges.set("non_finite_steps", 0.0)
        # Workers that never begin are a training that stands still, too.
        self._gauges.set("last_step_timestamp_seconds", now_unix)

    def begin(self, workers: int, step: int, planned_steps: int, now_unix: float) -> None:
        """A group of workers begins after this step."""
        self._gauges.set("workers", workers)
        self._gauges.set("step", step)
        self._gauges.set("planned_steps", planned_steps)
        self._gauges.set("last_step_timestamp_seconds", now_unix)
        # What is not saved yet is no older than this; the step 0 needs no checkpoint.
        self._gauges.set("checkpoint_timestamp_seconds", now_unix)
        self._gauges.set("checkpoint_step", step)

    def set(self, line: Mapping[str, Any], seconds_left: float | None, now_unix: float) -> None:
        """Sets what a metric line knows; the others stay as they are."""
        for figure in OF_LINES:
            if line.get(figure.name) is not None:
                self._gauges.set(figure.name, line[figure.name])
        if seconds_left is not None:
            self._gauges.set("seconds_left", seconds_left)
        self._gauges.set("last_step_timestamp_seconds", now_unix)

    def saved(self, step: int, seconds: float, now_unix: float) -> None:
        """A checkpoint has become whole."""
        self._gauges.set("checkpoint_step", step)
        self._gauges.set("checkpoint_seconds", seconds)
        self._gauges.set("checkpoint_timestamp_seconds", now_unix)

    def not_finite(self) -> None:
        """A step's loss or gradient was no number."""
        self._non_finite += 1
        self._gauges.set("non_finite_steps", self._non_finite)

    def end(self) -> None:
        """The stage is over, while its process may go on with the next."""
        self._gauges.set("active", 0.0)
        self._gauges.set("workers", 0.0)
        self._gauges.set("seconds_left", None)
