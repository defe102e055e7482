"""kill -9 of workers, of the desk and of the driver: little is bought twice, and the dataset is the same."""

import random
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from benchmarks.teacher_process import teacher_process
from synthesis_runs import (
    Counted,
    Order,
    Run,
    check_counts,
    counted_by,
    files_of,
    make_order,
    manifest_of,
    num_durable,
    started,
)

pytestmark = pytest.mark.alone

NUM_ROWS = 2000
NUM_CALLS = 3 * NUM_ROWS
IN_FLIGHT = 32
LATENCY_SECONDS = 0.2
DURABLE_SECONDS = 2.0
"""The promise: an answer is durable so long after it has come."""
STARVED_SECONDS, MOST_STARVED = 6.0, 3
"""So long it may take a few times, where two cores also start a process for the one that was killed."""
KILLS = ["worker"] * 4 + ["driver"] * 3 + ["desk"] * 3
RAY_NAMES = {"worker": "MapWorker", "desk": "Desk"}


@pytest.fixture(scope="module")
def large_order(tmp_path_factory: pytest.TempPathFactory) -> Order:
    with teacher_process(short=1) as teacher:
        return make_order(tmp_path_factory.mktemp("large"), NUM_ROWS, teacher.base_url)


def kill(run: Run, what: str, chance: random.Random) -> None:
    if what == "driver":
        run.kill()
        return
    # Ray may be starting the one that was killed before.
    run.wait_until(lambda: bool(run.find(RAY_NAMES[what])))
    chance.choice(run.find(RAY_NAMES[what])).kill()


def accepted_within(counted: Counted, seconds: float) -> int:
    """Calls that came so shortly before the last one that they may be lost."""
    since = counted.accepted_at[-1] - seconds - LATENCY_SECONDS
    return sum(moment > since for moment in counted.accepted_at)


@pytest.mark.timeout(600)
def test_ten_kills_in_one_synthesis_cost_no_more_than_what_was_not_durable_and_no_row(
    large_order: Order, tmp_path: Path
) -> None:
    chance = random.Random(3)
    kills = chance.sample(KILLS, len(KILLS))
    root = tmp_path / "killed"
    at_risk, repeated, num_starved = [0], [0], 0
    with teacher_process(short=1, latency_seconds=LATENCY_SECONDS) as teacher:
        url = teacher.base_url
        settings = (f"teacher.max_in_flight={IN_FLIGHT}",)
        with ExitStack() as runs:
            run = runs.enter_context(started(Run(root, large_order, url, *settings)))
            for number, what in enumerate(kills):
                goal = (number + chance.uniform(0.3, 0.9)) * NUM_CALLS / len(kills)
                run.wait_until(lambda goal=goal: counted_by(url).num_prompts >= goal)
                kill(run, what, chance)
                counted = counted_by(url)
                # What a driver's kill has cost and the next one has not asked for again yet is no answer of
                # these seconds. (After other kills most of what was at risk becomes durable.)
                lost = at_risk[-1] if kills[number - 1] == "driver" else 0
                still_lost = max(0, lost - (counted.num_repeated - repeated[-1]))
                at_risk.append(counted.num_prompts - num_durable(root))
                repeated.append(counted.num_repeated)
                new_at_risk = at_risk[-1] - still_lost
                num_starved += new_at_risk > accepted_within(counted, DURABLE_SECONDS)
                assert num_starved <= MOST_STARVED, (what, at_risk, repeated)
                assert new_at_risk <= accepted_within(counted, STARVED_SECONDS), (what, at_risk, repeated)
                if what == "driver":
                    run = runs.enter_context(started(Run(root, large_order, url, *settings)))
            assert run.end() == 0, run.output
        counted = counted_by(url)
    sys.stdout.write(f"kills {kills}, at risk {at_risk}, bought again {counted.num_repeated}\n")
    assert counted.num_prompts == NUM_CALLS
    assert counted.num_repeated <= sum(at_risk)
    assert files_of(root) == large_order.files
    check_counts(manifest_of(root), NUM_ROWS)
