"""The figures of a synthesis as Prometheus metrics, through the port that every Ray node exports."""

import math
from typing import Any

from ray.util.metrics import Gauge

# Ray cannot take a gauge back: one that was known and is not any more tells NaN.
_GAUGES = {
    "calls": "Calls that were answered, over all runs on this journal.",
    "tokens": "Tokens in and out, over all runs on this journal.",
    "cost_usd": "Cost of all answers ever bought; absent where there is no price.",
    "unsettled_usd": "Upper bound of what broken calls may have been charged.",
    "refusals": "Refusals for the rate (HTTP 429).",
    "requests_per_minute": "The present limit; absent where there is none.",
    "tokens_per_minute": "The present limit; absent where there is none.",
    "in_flight": "Requests at the teacher.",
    "waiting": "Requests that wait for a permit.",
    "seconds_left": "Time left at the present rate; absent where it is not known.",
}


class Metrics:
    """Gauges named `ray_asclepius_synthesis_…`, set by the driver."""

    def __init__(self) -> None:
        self._rows = Gauge("asclepius_synthesis_rows", "Rows by state.", tag_keys=("state",))
        self._gauges = {name: Gauge(f"asclepius_synthesis_{name}", text) for name, text in _GAUGES.items()}
        self._told: set[str] = set()

    def set(self, status: dict[str, Any]) -> None:
        for state, number in status["rows"].items():
            self._rows.set(number, {"state": state})
        for name, gauge in self._gauges.items():
            if status[name] is not None:
                gauge.set(status[name])
                self._told.add(name)
            elif name in self._told:
                gauge.set(math.nan)
