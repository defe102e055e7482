"""The figures of a synthesis under way as one line; it is written beside them into `status.json`."""

from typing import Any

STATUS_NAME = "status.json"


def describe(status: dict[str, Any]) -> str:
    """The figures as one line: rows, tokens, money, refusals, the limit, the time left, why it waits."""
    rows = status["rows"]
    parts = [f"{rows['ok']} ok, {rows['rejected']} rejected, {rows['failed']} failed"]
    parts.append(f"{status['tokens']:,} tokens")
    parts.append("cost unknown" if status["cost_usd"] is None else f"{status['cost_usd']:.4f} USD")
    if status["refusals"]:
        parts.append(f"{status['refusals']} refusals")
    if status["requests_per_minute"] is not None:
        parts.append(f"limit {status['requests_per_minute']:.0f}/min")
    if status["seconds_left"] is not None and rows["done"] < rows["readable"]:
        parts.append(f"{format_seconds(status['seconds_left'])} left")
    if status["why_waiting"]:
        parts.append(status["why_waiting"])
    return ", ".join(parts)


def format_seconds(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
