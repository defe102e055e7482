"""A teacher with a limit, a tail and errors: how much of the limit is used, by 1, 2 and 8 workers."""

from pathlib import Path

import pytest
from synthesis_runs import (
    run_synthesis,
    share_of_limit,
    share_to_the_last_answer,
    teacher_process,
    write_reports,
)

from asclepius_ray.progress import Progress

PER_MINUTE = 3000
NUM_ROWS = 1334
PLAIN = {"latency_seconds": 1.0, "latency_sigma": 0.6, "server_error": 0.01}
SLOW = PLAIN | {"slow": 0.01, "slow_seconds": 60.0}


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_nearly_all_of_the_limit_is_used_and_nothing_is_refused_or_lost(
    workers: int, ray_cluster: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_reports(tmp_path / "reports.csv", NUM_ROWS)
    with teacher_process(requests_per_minute=PER_MINUTE, short=1, **PLAIN) as teacher:
        manifest, seconds = run_synthesis(
            tmp_path / "root",
            tmp_path / "reports.csv",
            teacher,
            workers,
            requests_per_minute=PER_MINUTE,
            max_in_flight=0,
        )
        counters = teacher.counters()
    steady = share_of_limit(counters["accepted_at"], PER_MINUTE)
    whole = share_to_the_last_answer(counters, PER_MINUTE)
    refused = counters["refusals"] / len(counters["accepted_at"])
    lost = NUM_ROWS - manifest.counts["ok"]
    with capsys.disabled():
        Progress().say(
            f"limited, {workers} worker(s): {len(counters['accepted_at'])} calls in {seconds:.0f} s, "
            f"{steady:.1%} of the limit between the percentiles, {whole:.1%} to the last answer, "
            f"{refused:.2%} refused, {lost} rows lost"
        )
    assert steady >= 0.98
    assert whole >= 0.90
    assert refused < 0.005
    assert manifest.counts["failed"] == {}
    assert lost == 0


def test_slow_calls_hold_up_no_other(
    ray_cluster: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_reports(tmp_path / "reports.csv", 2 * NUM_ROWS)
    with teacher_process(requests_per_minute=PER_MINUTE, short=1, **SLOW) as teacher:
        run_synthesis(
            tmp_path / "root",
            tmp_path / "reports.csv",
            teacher,
            requests_per_minute=PER_MINUTE,
            max_in_flight=0,
        )
        steady = share_of_limit(teacher.counters()["accepted_at"], PER_MINUTE)
    with capsys.disabled():
        Progress().say(f"1 % of the calls take 60 s: {steady:.1%} of the limit between the percentiles")
    assert steady >= 0.90
