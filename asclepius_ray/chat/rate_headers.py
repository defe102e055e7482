"""Reads what a reply's headers tell of the endpoint's limits. Pure.

Known are OpenAI's `x-ratelimit-{limit,remaining,reset}-{requests,tokens}` (Azure, vLLM gateways and most
others send the same names), Anthropic's `anthropic-ratelimit-{requests,tokens}-…` with moments as resets,
and the plain `ratelimit-…` of the IETF draft. What cannot be read is taken as not sent.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LONGEST_WINDOW_SECONDS = 120.0


@dataclass(frozen=True)
class Allowance:
    """One of the two budgets of an endpoint: requests, or tokens."""

    per_minute: float | None
    """None where no limit is told, or one over another time than a minute."""
    remaining: float | None
    reset_seconds: float | None
    """Until the allowance is whole again."""


@dataclass(frozen=True)
class RateHeaders:
    requests: Allowance
    tokens: Allowance


def read_rate_headers(headers: Mapping[str, str]) -> RateHeaders | None:
    """What the headers tell; None where they tell nothing. Names may be in any case."""
    found = {name.lower(): value for name, value in headers.items() if "ratelimit" in name.lower()}
    if not found:
        return None
    now = datetime.now(UTC)
    return RateHeaders(_read(found, "requests", now), _read(found, "tokens", now))


def _read(headers: Mapping[str, str], kind: str, now: datetime) -> Allowance:
    for form in (f"x-ratelimit-%s-{kind}", f"anthropic-ratelimit-{kind}-%s"):
        if form % "limit" in headers or form % "remaining" in headers:
            return _allowance(headers, form, now)
    return _allowance(headers, "ratelimit-%s", now) if kind == "requests" else Allowance(None, None, None)


def _allowance(headers: Mapping[str, str], form: str, now: datetime) -> Allowance:
    """A limit counts as one of a minute unless limit, remaining and reset show a longer window.

    An allowance of which a share is used up and that is whole again only after more than two minutes is
    one of an hour or a day (Groq tells its requests of a day under OpenAI's name).
    """
    most, left = _number(headers.get(form % "limit")), _number(headers.get(form % "remaining"))
    seconds = _seconds(headers.get(form % "reset"), now)
    if most is None or most <= 0:
        return Allowance(None, left, seconds)
    if seconds is not None and seconds > _LONGEST_WINDOW_SECONDS:
        return Allowance(None, left, seconds)
    if left is not None and seconds is not None and most - left > 0:
        # Filled at most / 60 a second, what is missing now would be there after so long.
        expected_seconds = 60.0 * (most - left) / most
        if seconds > 4 * expected_seconds + 61.0:
            return Allowance(None, left, seconds)
    return Allowance(most, left, seconds)


def _number(value: str | None) -> float | None:
    # The draft allows parameters behind the number: "100;w=60".
    match = re.match(r"\s*(\d+(?:\.\d+)?)", value) if value is not None else None
    return float(match.group(1)) if match else None


def _seconds(value: str | None, now: datetime) -> float | None:
    """Seconds of "6m0s", "120ms", "1.5" or an RFC 3339 moment."""
    if not value:
        return None
    text = value.strip()
    if re.fullmatch(r"\d+(?:\.\d+)?", text):
        return float(text)
    parts = _DURATION_PART.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return sum(float(number) * _SECONDS[unit] for number, unit in parts)
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())
