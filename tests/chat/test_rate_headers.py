"""What an endpoint's headers tell of its limits, in the forms that providers send."""

from datetime import UTC, datetime, timedelta

import pytest

from asclepius_ray.chat.rate_headers import Allowance, RateHeaders, is_about_rates, read_rate_headers

NOTHING = Allowance(None, None, None)


def x(kind: str, **parts: str) -> dict[str, str]:
    return {f"x-ratelimit-{part}-{kind}": value for part, value in parts.items()}


@pytest.mark.parametrize(
    ("headers", "requests", "tokens"),
    [
        (
            x("requests", limit="3000", remaining="2999", reset="20ms")
            | x("tokens", limit="250000", remaining="149984", reset="24.003s"),
            Allowance(3000, 2999, 0.02),
            Allowance(250000, 149984, 24.003),
        ),
        (x("requests", limit="60", remaining="0", reset="1m0s"), Allowance(60, 0, 60.0), NOTHING),
        (
            x("requests", limit="1000", remaining="999", reset="3", renewalperiod="60")
            | x("tokens", limit="1000000", remaining="999992", reset="0", renewalperiod="60"),
            Allowance(1000, 999, 3.0),
            Allowance(1000000, 999992, 0.0),
        ),
        (
            x("requests", limit="20", remaining="19", renewalperiod="10"),
            Allowance(120, 19, None),
            NOTHING,
        ),
        (x("tokens", limit="-1", remaining="-1", reset="0"), NOTHING, Allowance(None, None, 0.0)),
        (x("requests", remaining="79") | x("tokens", remaining="61353"), Allowance(None, 79, None),
         Allowance(None, 61353, None)),
        ({"x-rate-limit-reset-tokens": "55"}, NOTHING, Allowance(None, None, 55.0)),
        (
            x("requests", limit="14400", remaining="14370", reset="2m59.56s")
            | x("tokens", limit="18000", remaining="17997", reset="7.66ms"),
            Allowance(None, 14370, 179.56),
            Allowance(18000, 17997, 0.00766),
        ),
        (x("requests", limit="1440", remaining="1400", reset="110s"), Allowance(None, 1400, 110.0), NOTHING),
        ({"ratelimit-limit": "100;w=60", "ratelimit-remaining": "7", "ratelimit-reset": "12"},
         Allowance(100, 7, 12.0), NOTHING),
        (x("requests", limit="many", remaining="some", reset="soon"), NOTHING, NOTHING),
    ],
    ids=[
        "openai", "openai, used up", "azure", "azure's window of ten seconds", "azure knows nothing",
        "azure without limits", "azure's refusal", "a limit of a day", "a limit of an hour by its pace",
        "draft of the ietf", "no numbers",
    ],
)  # fmt: skip
def test_the_forms_of_providers_are_read(
    headers: dict[str, str], requests: Allowance, tokens: Allowance
) -> None:
    assert read_rate_headers(headers) == RateHeaders(requests, tokens)
    assert read_rate_headers({name.upper(): value for name, value in headers.items()}) == RateHeaders(
        requests, tokens
    )


def test_a_moment_as_a_reset_is_read_as_the_time_until_then() -> None:
    moment = (datetime.now(UTC) + timedelta(seconds=30)).strftime("%Y-%m-%dT%H:%M:%SZ")
    found = read_rate_headers(
        {
            "anthropic-ratelimit-requests-limit": "50",
            "anthropic-ratelimit-requests-remaining": "49",
            "anthropic-ratelimit-requests-reset": moment,
            "anthropic-ratelimit-tokens-remaining": "0",
            "anthropic-ratelimit-tokens-reset": "2020-01-01T00:00:00Z",
        }
    )
    assert found is not None
    assert (found.requests.per_minute, found.requests.remaining) == (50, 49)
    assert found.requests.reset_seconds is not None
    assert 28.0 < found.requests.reset_seconds <= 30.0
    assert found.tokens == Allowance(None, 0, 0.0)


def test_other_headers_tell_nothing() -> None:
    assert read_rate_headers({"content-type": "application/json", "retry-after": "3"}) is None
    assert not is_about_rates("x-request-id")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"x-rate-limit-reset-tokens": "55"}, 55.0),
        (x("requests", remaining="0", reset="9s") | x("tokens", remaining="0", reset="4s"), 9.0),
        (x("requests", remaining="3", reset="9s"), None),
        (x("requests", limit="60", remaining="0", reset="60s"), None),
        (x("tokens", limit="-1", remaining="-1", reset="0"), None),
        (x("requests", limit="14400", remaining="0", reset="5h2m"), 18120.0),
    ],
    ids=["azure's refusal", "the later one", "not used up", "the limit tells the pace", "nothing", "a day"],
)
def test_a_refusal_without_retry_after_waits_as_its_headers_say(
    headers: dict[str, str], seconds: float | None
) -> None:
    found = read_rate_headers(headers)
    assert found is not None
    assert found.wait_seconds == seconds
