"""The figures of a synthesis as Prometheus metrics: those of `status.json`, from the same look."""

from typing import Any

from asclepius_ray.gauges import Figure, Gauges

_OF_STATUS = (
    Figure("calls", "Calls that were answered, over all runs on this journal."),
    Figure("tokens", "Tokens in and out, over all runs on this journal."),
    Figure("cost_usd", "Cost of all answers ever bought; absent where there is no price."),
    Figure("unsettled_usd", "Upper bound of what broken calls may have been charged."),
    Figure("refusals", "Refusals for the rate (HTTP 429) by the teacher, in this run."),
    Figure("requests_per_minute", "The present limit; absent where there is none."),
    Figure("tokens_per_minute", "The present limit; absent where there is none."),
    Figure("in_flight", "Requests at the teacher."),
    Figure("waiting", "Requests that wait for a permit."),
    Figure("workers", "Processes that walk rows and ask the teacher."),
    Figure("seconds_left", "Time left at the present rate; absent where it is not known."),
)
_FIGURES = (
    *_OF_STATUS,
    Figure("rows", "Rows by state; input, readable and done hold the others.", "state"),
    Figure("lost_rows", "Rows that were rejected or failed, by the code of the reason.", "reason"),
    Figure("budget_usd", "The most that may be spent; absent where there is no budget."),
    Figure("active", "1 while rows are walked, 0 afterwards."),
    Figure("awaits_batches", "1 while a provider's batches are awaited, which takes hours."),
    Figure("last_row_timestamp_seconds", "When a row was finished last; at first, when the first began."),
)


class Metrics:
    """Gauges named `ray_asclepius_synthesis_…`, set by the driver once a second."""

    def __init__(self, run: str) -> None:
        self._gauges = Gauges("synthesis", run, _FIGURES)

    def set(self, status: dict[str, Any]) -> None:
        """Tells what one look at the desk has found."""
        self._gauges.set_members("rows", status["rows"])
        self._gauges.set_members("lost_rows", status["lost"])
        for figure in _OF_STATUS:
            self._gauges.set(figure.name, status[figure.name])
        self._gauges.set("budget_usd", status["budget_usd"] or None)
        self._gauges.set("awaits_batches", float(status["awaits_batches"]))
        self._gauges.set("last_row_timestamp_seconds", status["last_row_unix"])
        self._gauges.set("active", 1.0)

    def end(self) -> None:
        """The stage is over, while its process may go on with the next."""
        self._gauges.set("active", 0.0)
        for name in ("in_flight", "waiting", "workers", "awaits_batches"):
            self._gauges.set(name, 0.0)
        self._gauges.set("seconds_left", None)
