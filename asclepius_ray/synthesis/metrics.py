"""The figures of a synthesis as Prometheus metrics, through the port that every Ray node exports.

What is not known is NaN: a gauge that is not set goes on telling its last value.
"""

import math
from typing import Any

from ray.util.metrics import Gauge

_GAUGES = {
    "calls": "Calls that were answered, over all runs on this journal.",
    "tokens": "Tokens in and out, over all runs on this journal.",
    "cost_usd": "Cost of all answers ever bought; NaN where there is no price.",
    "unsettled_usd": "Upper bound of what broken calls may have been charged.",
    "refusals": "Refusals for the rate (HTTP 429).",
    "requests_per_minute": "The present limit; NaN where none is known.",
    "tokens_per_minute": "The present limit; NaN where none is known.",
    "in_flight": "Requests at the teacher.",
    "waiting": "Requests that wait for a permit.",
    "seconds_left": "Time left at the present rate; NaN where it is not known.",
}


class Metrics:
    """Gauges named `ray_asclepius_synthesis_…`, set by the driver."""

    def __init__(self) -> None:
        self._rows = Gauge("asclepius_synthesis_rows", "Rows by state.", tag_keys=("state",))
        self._gauges = {name: Gauge(f"asclepius_synthesis_{name}", text) for name, text in _GAUGES.items()}

    def set(self, status: dict[str, Any]) -> None:
        for state, number in status["rows"].items():
            self._rows.set(number, {"state": state})
        for name, gauge in self._gauges.items():
            gauge.set(math.nan if status[name] is None else status[name])
