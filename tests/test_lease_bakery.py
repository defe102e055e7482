"""The queue for a root in a bucket, over all orders in which the requests of its claimants can meet."""

import pytest
from bakery_model import Limits, reachable, start

from asclepius_ray.lease.bakery import Claim, Step, entrants_of
from asclepius_ray.lease.watch import Watch

EVERYTHING = Limits(
    most_beats=2,
    processes_pause=True,
    processes_die=True,
    silences=2,
    writes_fail=True,
    dead_are_forgotten=True,
)
ORDERS = {
    "three that only want it": ("abc", Limits()),
    "three of which one may be silent": ("abc", Limits(silences=1)),
    "two with all that may happen": ("ab", EVERYTHING),
}


@pytest.mark.parametrize(("tokens", "limits"), ORDERS.values(), ids=ORDERS)
def test_in_no_order_of_requests_do_two_hold_the_root(tokens: str, limits: Limits) -> None:
    held_by, taken_over = set(), False
    for world in reachable(start(tokens), limits):
        holders = [process for process in world.processes if process.holds]
        assert len(holders) <= 1, world
        held_by |= {process.claim.token for process in holders}
        taken_over |= bool(holders) and any("deposed" in name for name in world.names)
    assert held_by == set(tokens)
    assert taken_over == bool(limits.silences)


def test_silence_is_counted_by_the_watcher_and_only_while_it_sees() -> None:
    watch = Watch(stale_seconds=60, longest_gap_seconds=15)
    there = {"a": 7.0}
    for seconds in range(0, 60, 10):
        assert watch.look(there, seconds, seconds) == set()
    # Nothing was seen for a while: neither was the other able to show anything, for all we know.
    for seconds in range(100, 160, 10):
        assert watch.look(there, seconds, seconds) == set()
    assert watch.look(there, 160, 160) == {"a"}
    assert not watch.has_moved("a")
    assert watch.look({"a": 8.0}, 170, 170) == set()
    assert watch.has_moved("a")


def test_one_whose_marks_were_cleared_before_it_had_its_number_is_lost() -> None:
    claim = Claim("a").after().after().after({})
    assert claim.step is Step.TAKE_NUMBER
    choosing_ended = claim.after().after()
    # By its clock it has only just shown its sign of life; meanwhile it was passed over, and forgotten.
    alone = entrants_of(["a.number.0000000001"])
    assert choosing_ended.after(alone).step is Step.LOST
    with_life = entrants_of(["a.number.0000000001", "a.beat.0000000001"])
    assert choosing_ended.after(with_life).step is Step.HOLD
