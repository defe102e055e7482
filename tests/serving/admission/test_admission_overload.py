"""Open-loop load beyond the capacity, simulated with the real admission and a clock of its own."""

import random
import time

import pytest
from simulated_engine import Engine, Load, simulate

from asclepius_ray.serving.access.account import Account, Caller
from asclepius_ray.serving.admission.admission import Admission
from asclepius_ray.serving.admission.occupancy import Places
from asclepius_ray.serving.admission.ticket import Size
from asclepius_ray.serving.config import ServingConfig
from asclepius_ray.serving.surface.api_errors import ApiError

ANSWER_TOKENS, MEAN_PROMPT_TOKENS = 200, 250
SIMULATED_SECONDS = 60.0
ENGINES = {
    # Places, seconds of a step, and more for each request in it.
    "a tiny model": (16, 0.001, 0.0005),
    "a GPU": (64, 0.02, 0.0005),
    "steps that cost the same however full": (32, 0.02, 0.0),
}
DEFAULT_QUEUE_SECONDS = ServingConfig().max_queue_seconds


def capacity_per_second(engine: Engine, mean_answer_tokens: float) -> float:
    step = engine.step_seconds + engine.num_places * engine.step_seconds_per_request
    read = MEAN_PROMPT_TOKENS * engine.prompt_seconds_per_token
    return 1 / (mean_answer_tokens * step / engine.num_places + read)


@pytest.mark.parametrize(
    "shortest_share", [1.0, 0.2], ids=["answers of one length", "answers of all lengths"]
)
@pytest.mark.parametrize("shape", ENGINES.values(), ids=ENGINES.keys())
def test_twice_the_load_makes_nobody_twice_as_late_and_no_fewer_tokens(
    shape: tuple[int, float, float], shortest_share: float
) -> None:
    capacity = capacity_per_second(Engine(*shape), ANSWER_TOKENS * (1 + shortest_share) / 2)
    outcomes = {
        share: simulate(
            Engine(*shape),
            Load(
                share * capacity,
                answer_tokens=ANSWER_TOKENS,
                shortest_share=shortest_share,
                seconds=SIMULATED_SECONDS,
            ),
            max_queue_seconds=DEFAULT_QUEUE_SECONDS,
        )
        for share in (0.8, 1.0, 2.0)
    }
    assert outcomes[2.0].percentile(0.99) <= 2 * outcomes[0.8].percentile(0.99)
    assert outcomes[2.0].good_tokens >= 0.9 * max(outcome.good_tokens for outcome in outcomes.values())
    assert outcomes[0.8].num_refused <= 0.06 * len(outcomes[0.8].latencies)
    assert outcomes[2.0].num_refused > 0.4 * len(outcomes[2.0].latencies), "else this was no overload"
    assert min(outcomes[2.0].retry_after) >= 1


def test_a_refusal_of_a_full_replica_costs_less_than_a_millisecond() -> None:
    now = 0.0
    admission = Admission(places=Places(256), max_queue_seconds=5.0, now=lambda: now)
    draws = random.Random(0)
    tickets = []
    for number in range(256):
        ticket = admission.admit_now(Account(str(number), "", Caller("k")), Size("m", 100, 400))
        tickets.append(ticket)
    now = 1.0
    for ticket in tickets:
        ticket.took(draws.randint(10, 50))
    refusals, started = 0, time.process_time()
    for number in range(500):
        try:
            admission.admit_now(Account(str(number), "", Caller("k")), Size("m", 100, 400))
        except ApiError:
            refusals += 1
    assert refusals > 400
    assert (time.process_time() - started) / 500 < 0.001


@pytest.mark.parametrize("wanted_tokens", [100, 900])
def test_who_comes_again_after_the_retry_after_is_admitted(wanted_tokens: int) -> None:
    """Whoever is alone in asking: the wait is that of the longest queue, and not of a constant."""
    now = 0.0
    admission = Admission(budget_tokens=2000, places=Places(4), now=lambda: now)
    running = [admission.admit_now(Account("r", "", Caller("k")), Size("m", 100, 400)) for _ in range(4)]

    def pass_time(seconds: float) -> None:
        nonlocal now
        for _ in range(round(seconds / 0.1)):
            now += 0.1
            for ticket in list(running):
                ticket.took(2)
                if ticket.made_tokens >= 400:
                    running.remove(ticket)
                    ticket.close("length")

    pass_time(2.0)
    with pytest.raises(ApiError) as refused:
        admission.admit_now(Account("r", "", Caller("k")), Size("m", 0, wanted_tokens))
    told = refused.value.retry_after_seconds
    # Twenty tokens a second for each: 360 of 400 are left.
    assert 18 <= told <= 19
    pass_time(told - 2)
    with pytest.raises(ApiError):
        admission.admit_now(Account("r", "", Caller("k")), Size("m", 0, wanted_tokens))
    pass_time(2)
    admission.admit_now(Account("r", "", Caller("k")), Size("m", 0, wanted_tokens))
