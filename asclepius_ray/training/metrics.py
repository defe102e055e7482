"""The figures of a training as Prometheus metrics, through the port that every Ray node exports."""

from collections.abc import Mapping
from typing import Any

from ray.util.metrics import Gauge

_GAUGES = {
    "step": "Optimizer steps done, over all phases.",
    "workers": "Workers that train at present.",
    "loss": "Mean loss per target of the last step.",
    "validation_loss": "Mean loss per target of the held-out rows, at the last validation.",
    "perplexity": "The exponential of the validation loss.",
    "learning_rate": "The rate of the last step.",
    "gradient_norm": "Norm of the last step's gradient, before it was clipped.",
    "tokens": "Real tokens of the last step, over all workers.",
    "tokens_per_second": "Real tokens a second over all workers; padding is not counted.",
    "padding_share": "Share of the positions that hold no token.",
    "data_wait_share": "Share of the last step that rank 0 waited for its rows.",
    "checkpoint_blocked_share": "Share of the time that rank 0 stood still for a checkpoint.",
    "model_flops_utilisation": "Share of the GPUs' arithmetic that is used; absent where it is not known.",
    "host_memory_gib": "Resident memory of rank 0.",
    "device_memory_gib": "Peak of the memory allocated on rank 0's GPU.",
    "seconds_left": "Time left at the present rate.",
}


class Metrics:
    """Gauges named `ray_asclepius_training_…`, set by the driver."""

    def __init__(self) -> None:
        self._gauges = {name: Gauge(f"asclepius_training_{name}", text) for name, text in _GAUGES.items()}

    def set(self, values: Mapping[str, Any]) -> None:
        """Sets what is known of these values; the others stay as they are."""
        for name, gauge in self._gauges.items():
            if values.get(name) is not None:
                gauge.set(values[name])
