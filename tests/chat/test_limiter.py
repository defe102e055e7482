"""One limiter before a simulated provider: how much of its limit is used, and how little is refused."""

import random
from collections.abc import Callable
from itertools import pairwise

import pytest
from simulated_provider import (
    Bucket,
    Call,
    Clients,
    Provider,
    heaviest_minute,
    like_a_note,
    most_in_a_minute,
)

from asclepius_ray.chat.limiter import DECREASE, Limiter, Limits
from asclepius_ray.chat.rate_headers import Allowance, RateHeaders, read_rate_headers

SECONDS = 400.0
NOTHING = Allowance(None, None, None)


def accepted_share(
    provider: Provider, per_minute: float, since: float = 60.0, until: float = SECONDS
) -> float:
    """Of what the limit allows in that time."""
    accepted = sum(since <= moment < until for moment, _tokens in provider.accepted)
    return accepted / (until - since) * 60 / per_minute


def refused_share(clients: Clients, since: float = 60.0) -> float:
    refused = sum(moment >= since for moment in clients.provider.refused_at)
    return refused / max(sum(moment >= since for moment in clients.sent_at), 1)


def run(limits: Limits, provider: Provider, seconds: float = SECONDS, **settings: object) -> Clients:
    clients = Clients(Limiter(limits, 0.0), provider, **settings)  # type: ignore[arg-type]
    clients.run(seconds)
    return clients


def idle_spells(seed: int) -> list[tuple[float, float]]:
    draw = random.Random(seed)
    return [(at, at + draw.choice([0.1, 0.5, 3.0, 20.0])) for at in range(5, 400, 9)]


@pytest.mark.parametrize("per_minute", [10, 60, 150, 500, 3000])
def test_no_minute_holds_more_than_the_limit_and_nothing_is_refused(per_minute: int) -> None:
    for idle in ([], idle_spells(1), idle_spells(2)):
        clients = Clients(Limiter(Limits(per_minute), 0.0), Provider(Bucket(per_minute)))
        clients.run(SECONDS, idle)
        assert 0.3 * per_minute * SECONDS / 60 < len(clients.sent_at)
        assert most_in_a_minute(clients.sent_at) <= per_minute
        assert clients.provider.refused_at == []


@pytest.mark.parametrize("per_minute", [10, 60, 500, 3000, 30000])
def test_at_least_98_percent_of_the_limit_is_used(per_minute: int) -> None:
    clients = run(Limits(per_minute), Provider(Bucket(per_minute)))
    assert accepted_share(clients.provider, per_minute) >= 0.98


@pytest.mark.parametrize("per_minute", [90_000, 900_000])
@pytest.mark.parametrize(
    "draw_call",
    [
        like_a_note,
        lambda draw: Call(4000, 2600, 300),
        lambda draw: Call(8000, 700, 50),
        lambda draw: Call(4000, draw.randint(500, 1500), draw.randint(20, 1000)),
    ],
    ids=["as estimated", "twice as many", "a third", "each another"],
)
def test_tokens_are_settled_by_usage_however_wrong_the_estimate(
    draw_call: Callable[[random.Random], Call], per_minute: int
) -> None:
    """One request is up to two seconds' worth of tokens here, and so much may be owed at a time.

    A provider whose bucket holds one second's worth accepts a minute and a second's worth in a minute.
    """
    provider = Provider(tokens=Bucket(per_minute))
    clients = run(Limits(tokens_per_minute=per_minute), provider, draw_call=draw_call)
    used = sum(tokens for moment, tokens in provider.accepted if moment >= 60)
    assert 0.9 <= used / (SECONDS - 60) * 60 / per_minute <= 1.0
    assert heaviest_minute(provider.accepted) <= per_minute * 61 / 60 + 2900
    assert refused_share(clients, since=0.0) <= 0.03


def test_a_debt_of_tokens_is_repaid_before_anything_is_sent() -> None:
    limiter = Limiter(Limits(tokens_per_minute=6000), 0.0)
    assert limiter.reserve(100, 0.0, 0.1) == 0.0
    limiter.settle(100, 3100, 1.0)
    assert limiter.reserve(100, 2.0, 0.1) is None
    assert limiter.reserve(100, 30.5, 1.0) == pytest.approx(31.0, abs=0.3)


def test_tokens_reserved_too_many_are_given_back() -> None:
    limiter = Limiter(Limits(tokens_per_minute=6000), 0.0)
    assert limiter.reserve(3000, 0.0, 0.1) == 0.0
    assert limiter.reserve(100, 2.0, 0.1) is None
    limiter.settle(3000, 100, 2.0)
    assert limiter.reserve(100, 2.0, 0.1) == 2.0


@pytest.mark.parametrize("per_minute", [60, 500, 3000])
@pytest.mark.parametrize("tells_retry_after", [False, True], ids=["", "retry after"])
def test_a_limit_that_only_headers_tell_is_kept_from_the_first_reply_on(
    per_minute: int, tells_retry_after: bool
) -> None:
    """Replies of a busy endpoint say that nothing is left, and say so late: that stops nobody."""
    provider = Provider(Bucket(per_minute), tells_headers=True, tells_retry_after=tells_retry_after)
    clients = run(Limits(), provider, max_in_flight=per_minute // 3)
    assert accepted_share(provider, per_minute) >= 0.98
    assert refused_share(clients) == 0.0
    assert most_in_a_minute([moment for moment in clients.sent_at if moment > 60]) <= per_minute


def test_headers_of_azure_tell_the_same_pace_as_openais() -> None:
    paces = []
    for headers in (
        {"x-ratelimit-limit-requests": "120", "x-ratelimit-remaining-requests": "119",
         "x-ratelimit-reset-requests": "500ms"},
        {"x-ratelimit-limit-requests": "20", "x-ratelimit-remaining-requests": "19",
         "x-ratelimit-reset-requests": "10", "x-ratelimit-renewalperiod-requests": "10"},
    ):  # fmt: skip
        limiter, read = Limiter(Limits(), 0.0), read_rate_headers(headers)
        assert read is not None
        limiter.heard(read, 0.0, 1.0)
        paces.append(limiter.present_requests_per_minute)
    assert paces[0] == paces[1] == pytest.approx(120, rel=0.01)


def test_a_limit_of_the_run_file_stands_whatever_headers_say() -> None:
    limiter = Limiter(Limits(300, 0), 0.0)
    limiter.heard(RateHeaders(Allowance(9000, 5, 1.0), Allowance(50_000, 5, 1.0)), 0.0, 0.0)
    assert limiter.present_requests_per_minute == pytest.approx(300, rel=0.01)
    assert limiter.present_tokens_per_minute == pytest.approx(50_000, rel=0.01)


def test_an_allowance_of_a_day_that_is_used_up_is_waited_for() -> None:
    limiter = Limiter(Limits(3000), 0.0)
    limiter.heard(RateHeaders(Allowance(None, 0, 7200.0), NOTHING), 10.0, 11.0)
    assert limiter.reserve(1, 7000.0, 1.0) is None
    assert limiter.reserve(1, 7209.5, 1.0) == 7210.0
    assert "wait 7199 s" in limiter.pause_reason


@pytest.mark.parametrize("per_minute", [0, 3000])
def test_nothing_is_sent_before_retry_after_is_over(per_minute: int) -> None:
    limiter = Limiter(Limits(per_minute), 0.0)
    sent_at = limiter.reserve(1, 0.0, 1.0)
    assert sent_at == 0.0
    limiter.refused(20.0, sent_at, 0.2)
    assert limiter.reserve(1, 19.0, 1.0) is None
    assert limiter.reserve(1, 19.5, 1.0) == 20.2
    # Another refusal of the same burst asks for longer.
    limiter.refused(30.0, 0.1, 19.6)
    assert limiter.reserve(1, 40.0, 1.0) is None
    assert limiter.reserve(1, 49.6, 1.0) == pytest.approx(49.6)


def test_the_refusals_of_one_burst_slow_down_once() -> None:
    paces = []
    for num_refused in (1, 30):
        limiter = Limiter(Limits(), 0.0)
        for number in range(120):
            assert limiter.reserve(1, number / 10, 1.0) is not None
        for _ in range(num_refused):
            limiter.refused(None, 11.9, 12.0)
        paces.append(limiter.present_requests_per_minute)
    # The others of the burst are not among what was accepted when the first was heard of.
    assert paces[0] == paces[1]


@pytest.mark.parametrize(
    ("per_minute", "least_used", "most_refused"), [(60, 0.8, 0.09), (500, 0.9, 0.02), (3000, 0.9, 0.005)]
)
@pytest.mark.parametrize("told", [0, 10], ids=["told by nobody", "told ten times too much"])
@pytest.mark.parametrize("tells_retry_after", [False, True], ids=["", "retry after"])
def test_a_hidden_limit_is_found_with_few_refusals(
    per_minute: int, least_used: float, most_refused: float, told: int, tells_retry_after: bool
) -> None:
    provider = Provider(Bucket(per_minute), tells_retry_after=tells_retry_after)
    clients = run(Limits(told * per_minute), provider)
    assert accepted_share(provider, per_minute) >= least_used
    assert refused_share(clients) <= most_refused


@pytest.mark.parametrize(("told", "tells_headers"), [(True, False), (False, True)], ids=["told", "headers"])
def test_an_account_that_others_use_too_yields_what_they_leave(told: bool, tells_headers: bool) -> None:
    per_minute = 1000
    provider = Provider(Bucket(per_minute), tells_headers=tells_headers, others_per_minute=600.0)
    clients = run(Limits(per_minute if told else 0), provider)
    assert accepted_share(provider, 400) >= 0.9
    assert refused_share(clients) <= 0.03


def test_the_decrease_is_multiplicative_and_the_recovery_additive() -> None:
    limiter = Limiter(Limits(), 0.0)
    for number in range(600):
        limiter.reserve(1, number / 20, 1.0)
    limiter.refused(1.0, 29.95, 30.0)
    rate = limiter.present_requests_per_minute
    assert rate == pytest.approx(DECREASE * 1200, rel=0.05)
    rates = [rate]
    for seconds in (11, 21, 31, 41, 51):
        limiter.reserve(1, 30.0 + seconds, 1.0)
        rates.append(limiter.present_requests_per_minute)
    steps = [after - before for before, after in pairwise(rates)]
    assert steps == [pytest.approx(steps[0])] * 5
    assert rates[-1] > 1200


def test_a_known_limit_gives_way_a_little_at_one_refusal_and_is_back_within_a_minute() -> None:
    limiter = Limiter(Limits(1200), 0.0)
    for number in range(600):
        limiter.reserve(1, number / 20, 1.0)
    limiter.refused(1.0, 29.95, 30.0)
    assert limiter.present_requests_per_minute == pytest.approx(0.95 * 1200, rel=0.01)
    for second in range(31, 91):
        limiter.reserve(1, float(second), 1.0)
    assert limiter.present_requests_per_minute == pytest.approx(1200, rel=0.01)


def test_an_heir_keeps_the_pace_and_the_pause_of_a_lost_limiter() -> None:
    lost = Limiter(Limits(0, 90_000), 0.0)
    for number in range(300):
        lost.reserve(1, number / 20, 1.0)
    lost.refused(None, 14.9, 15.0)
    lost.refused(None, 15.3, 16.0)
    lost.refused(25.0, 15.3, 16.0)
    for headers in (NOTHING, Allowance(700, 300, 2.0)):
        lost.heard(RateHeaders(headers, NOTHING), 16.0, 16.0)
        heir = Limiter(Limits(0, 90_000), 1000.0)
        heir.inherit(lost.learnt(16.0), 1000.0)
        heir.inherit(lost.learnt(18.0), 1000.0)
        assert heir.present_requests_per_minute == lost.present_requests_per_minute
        assert heir.present_tokens_per_minute == lost.present_tokens_per_minute
        assert heir.reserve(1, 1024.0, 0.5) is None
        assert heir.reserve(1, 1024.9, 0.5) == pytest.approx(1025.0)
