"""Reads what a reply's headers tell of the endpoint's limits. Pure.

Known are OpenAI's `x-ratelimit-{limit,remaining,reset}-{requests,tokens}` with durations as resets (vLLM
gateways and most others send the same names), Azure's with plain seconds, the window of its limits in
`x-ratelimit-renewalperiod-…` and at times `x-rate-limit-…`, Anthropic's `anthropic-ratelimit-{requests,
tokens}-…` with moments as resets, and the plain `ratelimit-…` of the IETF draft. What cannot be read, such
as Azure's -1, is taken as not sent.
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

    @property
    def wait_seconds(self) -> float | None:
        """What a refusal without Retry-After asks for; None where limits tell the pace, or nothing does."""
        resets = [one.reset_seconds for one in (self.requests, self.tokens) if _tells_only_its_reset(one)]
        return max((seconds for seconds in resets if seconds), default=None)


def is_about_rates(name: str) -> bool:
    """Whether a header of that name tells of a limit."""
    return "ratelimit" in _plain(name)


def read_rate_headers(headers: Mapping[str, str]) -> RateHeaders | None:
    """What the headers tell; None where they tell nothing. Names may be in any case."""
    found = {_plain(name): value for name, value in headers.items() if is_about_rates(name)}
    if not found:
        return None
    now = datetime.now(UTC)
    return RateHeaders(_read(found, "requests", now), _read(found, "tokens", now))


def _plain(name: str) -> str:
    return name.lower().replace("rate-limit", "ratelimit")


def _tells_only_its_reset(allowance: Allowance) -> bool:
    return allowance.per_minute is None and not allowance.remaining


def _read(headers: Mapping[str, str], kind: str, now: datetime) -> Allowance:
    for form in (f"x-ratelimit-%s-{kind}", f"anthropic-ratelimit-{kind}-%s"):
        if any(form % part in headers for part in ("limit", "remaining", "reset")):
            return _allowance(headers, form, now)
    return _allowance(headers, "ratelimit-%s", now) if kind == "requests" else Allowance(None, None, None)


def _allowance(headers: Mapping[str, str], form: str, now: datetime) -> Allowance:
    """A limit counts as one of a minute unless it says otherwise, or limit, remaining and reset do.

    An allowance of which a share is used up and that is whole again only after more than two minutes is
    one of an hour or a day (Groq tells its requests of a day under OpenAI's name).
    """
    most, left = _number(headers.get(form % "limit")), _number(headers.get(form % "remaining"))
    seconds = _seconds(headers.get(form % "reset"), now)
    if most is None or most <= 0:
        return Allowance(None, left, seconds)
    period_seconds = _number(headers.get(form % "renewalperiod"))
    if period_seconds:
        return Allowance(most * 60.0 / period_seconds, left, seconds)
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
