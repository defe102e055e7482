"""How many replicas there are to be: single looks, and a simulated day under Serve's own delays."""

import random
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from simulated_day import HOUR, RATE, START_SECONDS, Second, hospital_demand, simulate

from asclepius_ray.config import parse_section
from asclepius_ray.errors import ConfigError
from asclepius_ray.serving.config import ServingConfig
from asclepius_ray.serving.scaling import (
    ReplicaLoad,
    expected_wait_seconds,
    least_wanted,
    wanted_replicas,
)
from asclepius_ray.serving.scaling_options import scaling_options

FULL = ReplicaLoad(
    queued_tokens=5000, held_tokens=15000, filled_share=1.5, asked_tokens=5000, tokens_per_second=1000
)
REFUSING = replace(FULL, asked_tokens=10000, refused_tokens=5000)
BUSY = ReplicaLoad(held_tokens=8000, filled_share=0.8, asked_tokens=8000, tokens_per_second=900)
CALM = ReplicaLoad(held_tokens=2000, filled_share=0.2, asked_tokens=2000, tokens_per_second=400)
IDLE = ReplicaLoad(tokens_per_second=400)


def wanted(*loads: ReplicaLoad, target: int | None = None, held: float = 0.0, wait: float = 1.0) -> int:
    return wanted_replicas(len(loads), len(loads) if target is None else target, loads, held, wait)


def test_the_expected_wait_is_what_waits_and_was_refused_over_the_rate_of_all() -> None:
    assert expected_wait_seconds([FULL, IDLE]) == pytest.approx(5000 / 1400)
    assert expected_wait_seconds([REFUSING]) == pytest.approx(10.0)
    assert expected_wait_seconds([IDLE]) == expected_wait_seconds([]) == 0.0


def test_a_wait_beyond_the_target_adds_replicas_and_one_within_it_none() -> None:
    assert wanted(FULL, wait=1.0) == 2
    assert wanted(FULL, wait=6.0) == 1
    assert wanted(FULL, CALM, CALM, CALM, wait=3.0) == 4


def test_as_many_are_added_as_take_in_what_is_asked_for() -> None:
    # 4 replicas' worth is refused besides what 4 replicas do: 8; half of one more than they do: 5.
    assert wanted(*[REFUSING] * 4) == 8
    half = replace(FULL, queued_tokens=1500, asked_tokens=5500, refused_tokens=250)
    assert wanted(*[half] * 4) == 5


def test_refusals_alone_tell_of_a_full_replica_where_nothing_may_queue() -> None:
    assert wanted(replace(REFUSING, queued_tokens=0)) == 2


def test_repeated_refusals_do_no_more_than_double_the_replicas() -> None:
    storm = replace(REFUSING, asked_tokens=1e6, refused_tokens=1e6)
    assert wanted(storm, storm, storm) == 6


def test_while_replicas_start_the_same_wait_asks_for_no_more() -> None:
    assert wanted(REFUSING, target=2) == 2
    assert wanted(REFUSING, target=4) == 4


def test_a_queue_at_a_replica_of_unknown_speed_asks_for_one_more() -> None:
    assert wanted(replace(FULL, tokens_per_second=0)) == 2


def test_one_goes_at_a_time_and_only_if_the_others_hold_all_with_room_to_spare() -> None:
    assert wanted(CALM, CALM, CALM, CALM) == 3
    assert wanted(BUSY, CALM, CALM) == 2
    assert wanted(BUSY, BUSY, CALM) == 3
    assert wanted(BUSY, CALM) == 2
    # One short refusal does not add a replica, and takes none away.
    assert wanted(CALM, replace(CALM, refused_tokens=100)) == 2


def test_none_goes_while_one_has_not_told_its_load() -> None:
    assert wanted_replicas(3, 3, [CALM, CALM], 0.0, 1.0) == 3


def test_one_that_starts_in_vain_is_given_up() -> None:
    assert wanted(CALM, target=3) == 2


def test_the_last_one_goes_when_nothing_is_asked_held_or_waiting() -> None:
    assert wanted(IDLE) == 0
    assert wanted(replace(IDLE, asked_tokens=10)) == 1
    assert wanted(replace(IDLE, held_tokens=10)) == 1
    assert wanted(IDLE, held=1) == 1


def test_the_first_held_request_starts_one_and_it_goes_on_starting() -> None:
    assert wanted(target=0) == 0
    assert wanted(target=0, held=3) == 1
    assert wanted(target=1, held=0) == 1


def test_of_several_wishes_for_more_in_a_row_the_smallest_counts() -> None:
    assert least_wanted(5, 2, None) == 5
    assert least_wanted(3, 2, 5) == 3
    assert least_wanted(5, 2, 3) == 3
    assert least_wanted(2, 2, 3) is None
    assert least_wanted(6, 3, 3) == 6, "what was granted is no bound any more"


def test_replicas_are_a_number_or_a_range_whose_fewest_may_be_none() -> None:
    def options(replicas: object) -> dict[str, object]:
        return scaling_options(parse_section(ServingConfig, {"replicas": replicas}, "a run file"))

    assert options(3) == options([3, 3]) == {"num_replicas": 3}
    scaling: Any = options([0, 4])["autoscaling_config"]
    assert (scaling.min_replicas, scaling.initial_replicas, scaling.max_replicas) == (0, 1, 4)
    assert ServingConfig(replicas=(0, 4)).private("127.0.0.1").replicas == (1, 4)
    for wrong in (0, [0, 0], [3, 2], [-1, 2], [1, 2, 3], True, [True, 2], "many"):
        with pytest.raises(ConfigError, match="number of replicas from 1 on, or"):
            options(wrong)


def test_a_model_that_nobody_may_wait_for_must_not_lose_its_last_replica() -> None:
    with pytest.raises(ValueError, match=r"held_requests = 0 with replicas = \[0, 4\].*set held_requests"):
        ServingConfig(replicas=(0, 4), held_requests=0)
    assert ServingConfig(replicas=(1, 4), held_requests=0).held_requests == 0


@pytest.fixture(scope="module")
def day() -> list[Second]:
    return simulate(ServingConfig(replicas=(0, 12)), hospital_demand, 24 * HOUR, replicas=1)


def changes(seconds: list[Second]) -> list[tuple[int, int]]:
    """Moments and steps."""
    targets = [second.num_target for second in seconds]
    return [(at, now - before) for at, (before, now) in enumerate(pairwise(targets)) if now != before]


def test_a_day_has_as_many_changes_as_its_hill_needs(day: list[Second]) -> None:
    steps = changes(day)
    ups, downs = [step for _, step in steps if step > 0], [step for _, step in steps if step < 0]
    peak = max(second.num_target for second in day)
    assert peak <= 10, "the hill's top is 6.5 replicas' work, which 9.3 hold with room to spare"
    assert len(steps) <= 2 * peak + 4
    assert sum(ups) <= peak + 2
    assert set(downs) == {-1}


def test_no_replica_goes_soon_after_one_came(day: list[Second]) -> None:
    came = [at for at, step in changes(day) if step > 0]
    went = [at for at, step in changes(day) if step < 0]
    idle = ServingConfig().idle_seconds
    assert all(not 0 < gone - at < idle for gone in went for at in came)


def test_a_night_costs_nothing_and_the_day_hardly_waits(day: list[Second]) -> None:
    assert {second.num_target for second in day[HOUR : 5 * HOUR]} == {0}
    assert day[-1].num_target == 0
    # Beside the hourly spikes, which nobody is there for, and the first replica's start.
    calm = [second for at, second in enumerate(day) if at % HOUR > 60 and second.asked and second.num_running]
    asked = sum(second.asked for second in calm)
    assert sum(second.refused for second in calm) / asked < 0.01
    assert sum(second.wait_seconds > 1.0 for second in calm) / len(calm) < 0.03


def test_a_load_that_more_than_triples_at_once_is_served_as_soon_as_replicas_have_started() -> None:
    def demand(second: int, draws: random.Random) -> float:
        return (1.6 if second < 600 else 5.5) * RATE

    seconds = simulate(ServingConfig(replicas=(1, 12)), demand, 1200, replicas=2)
    assert seconds[599].num_target == 2
    grown = 600 + 2 * (START_SECONDS + 25)
    assert all(second.refused == 0 for second in seconds[grown:])
    assert seconds[-1].wait_seconds < 1.0
    assert seconds[-1].num_target <= 8
    assert all(step > 0 for _, step in changes(seconds))


def test_a_burst_shorter_than_the_patience_adds_nobody() -> None:
    def demand(second: int, draws: random.Random) -> float:
        return (3.0 if second % 300 < 5 else 0.75) * RATE

    seconds = simulate(ServingConfig(replicas=(1, 4), scale_up_seconds=20), demand, HOUR, replicas=1)
    assert changes(seconds) == []
