"""The figures of a synthesis under way as one line; it is written beside them into `status.json`."""

from typing import Any

STATUS_NAME = "status.json"


def describe(status: dict[str, Any]) -> str:
    """The figures as one line: rows, tokens, money, refusals, the limit, the time left, why it waits.

    All of them always, so that what is not there is not taken for what was forgotten.
    """
    rows, left = status["rows"], status["seconds_left"]
    is_over = rows["done"] >= rows["readable"]
    parts = [
        f"{rows['ok']} ok, {rows['rejected']} rejected, {rows['failed']} failed",
        f"{status['tokens']:,} tokens",
        "cost unknown" if status["cost_usd"] is None else f"{status['cost_usd']:.4f} USD",
        f"{status['refusals']} refusals",
        _describe_limit(status["requests_per_minute"], status["tokens_per_minute"]),
        f"{format_seconds(0.0 if is_over else left)} left"
        if is_over or left is not None
        else "time left unknown",
    ]
    return ", ".join([*parts, status["why_waiting"]] if status["why_waiting"] else parts)


def _describe_limit(requests_per_minute: float | None, tokens_per_minute: float | None) -> str:
    limits = ((requests_per_minute, "calls"), (tokens_per_minute, "tokens"))
    known = [f"{limit:,.0f} {kind}/min" for limit, kind in limits if limit is not None]
    return f"limit {' and '.join(known)}" if known else "no limit known"


def format_seconds(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
