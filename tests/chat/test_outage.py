"""When an endpoint counts as out, and how gently it is tried then."""

from asclepius_ray.chat.gate import Ending
from asclepius_ray.chat.outage import LEAST_BROKEN, Outage


def tries_within(outage: Outage, seconds: float) -> int:
    """How often it may be tried from moment 0 on by somebody who always wants to, each try broken at once."""
    num_tries = 0
    for millisecond in range(int(1000 * seconds)):
        now = millisecond / 1000
        if outage.may_try(now):
            outage.tried(now)
            outage.observe(Ending.SERVER_ERROR, now)
            num_tries += 1
    return num_tries


def test_an_endpoint_that_answers_nobody_is_tried_gently_from_the_first_moments_on() -> None:
    outage = Outage(100.0)
    assert LEAST_BROKEN < tries_within(outage, 3.0) <= LEAST_BROKEN + 30
    assert tries_within(Outage(100.0), 23.0) <= LEAST_BROKEN + 30 + 21


def test_one_answer_ends_an_outage_and_a_refusal_for_the_rate_does_not() -> None:
    outage = Outage(100.0)
    tries_within(outage, 10.0)
    assert "no answer" in outage.describe(10.0)
    outage.observe(Ending.LIMITED, 10.0)
    assert outage.is_on(10.0)
    outage.observe(Ending.REJECTED, 10.0)
    assert not outage.is_on(10.0)
    assert outage.describe(10.0) == ""
    assert all(outage.may_try(10.0) for _ in range(100))
