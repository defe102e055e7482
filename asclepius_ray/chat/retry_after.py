"""How long to wait before the next try: the server's own word, or exponential with jitter."""

import random
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

FIRST_BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 30.0


def retry_after_seconds(headers: Mapping[str, str], now: datetime) -> float | None:
    """The wait that the headers ask for: retry-after-ms, or Retry-After in seconds or as a date.

    None where neither can be read. A date in the past is 0.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    seconds = _number(value)
    if seconds is not None or value is None:
        return seconds
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())


def backoff_seconds(tries: int, jitter: random.Random) -> float:
    """A wait before try number `tries` + 1; it doubles each time, up to a limit, times 0.5 to 1."""
    longest = min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** min(tries - 1, 16))
    return longest * jitter.uniform(0.5, 1.0)


def _number(value: str | None) -> float | None:
    try:
        number = float(value) if value is not None else None
    except ValueError:
        return None
    # A NaN, an infinity or a negative wait is no wait that a server can mean.
    return number if number is not None and 0 <= number < float("inf") else None
