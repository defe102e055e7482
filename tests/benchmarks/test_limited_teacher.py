"""A teacher with a limit, a tail and errors: how much of the limit is used, what is refused, what is lost."""

from pathlib import Path
from typing import Any

import pytest
from conftest import Note
from contest import Result, run_contender
from curator_environment import curator_python
from teacher_process import teacher_process
from workload import CALLS_PER_ROW, write_prompts, write_reports

PER_MINUTE = 3000
NUM_ROWS = 1334
QUICK_ROWS = 334
FAULTY = {
    "requests_per_minute": PER_MINUTE,
    "short": 1,
    "latency_seconds": 1.0,
    "latency_sigma": 0.6,
    "server_error": 0.01,
}
SLOW = FAULTY | {"slow": 0.01, "slow_seconds": 60.0}
ENDPOINT = {"requests_per_minute": PER_MINUTE, "max_in_flight": 0}
TARGET = "steady >= 98 %, whole >= 90 %, refused < 0.5 %, lost 0"


@pytest.fixture(scope="module")
def num_rows(is_quick: bool) -> int:
    return QUICK_ROWS if is_quick else NUM_ROWS


@pytest.fixture(scope="module")
def prompts(num_rows: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prompts")
    write_reports(folder / "reports.csv", num_rows)
    write_prompts(folder / "prompts.jsonl", folder / "reports.csv", num_rows * CALLS_PER_ROW)
    return folder / "prompts.jsonl"


def told(result: Result) -> str:
    served = result.served
    return (
        f"{served.steady_share(PER_MINUTE):.1%} of the limit between the percentiles, "
        f"{served.whole_share(PER_MINUTE):.1%} from first call to last answer, "
        f"{served.refused_share:.2%} refused, {result.num_lost} lost"
    )


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_nearly_all_of_the_limit_is_used_and_nothing_is_refused_or_lost(
    workers: int, num_rows: int, is_quick: bool, note: Note, tmp_path: Path
) -> None:
    result = run_ours(workers, num_rows, FAULTY, tmp_path)
    served = result.served
    who = f"ours, {workers} worker(s) on 2 nodes"
    note("limited", who, served.num_accepted, served.seconds, told(result), TARGET)
    assert result.num_lost == 0
    assert served.refused_share < 0.005, told(result)
    if not is_quick:
        assert served.steady_share(PER_MINUTE) >= 0.98, told(result)
        assert served.whole_share(PER_MINUTE) >= 0.90, told(result)


def test_curator_on_the_limited_teacher(prompts: Path, note: Note, tmp_path: Path) -> None:
    python = curator_python()
    settings = {"prompts": str(prompts), "requests_per_minute": PER_MINUTE, "in_flight": 0}
    with teacher_process(**FAULTY) as teacher:
        result = run_contender("curator", teacher, settings, tmp_path / "curator", python)
    assert result.served.num_accepted > 0
    who = f"bespoke curator {result.said['version']}, told the limit"
    note("limited", who, result.served.num_accepted, result.served.seconds, told(result))


@pytest.mark.parametrize("in_flight", [100, 400])
def test_plain_client_on_the_limited_teacher(
    in_flight: int, prompts: Path, note: Note, tmp_path: Path
) -> None:
    settings = {"prompts": str(prompts), "in_flight": in_flight, "max_retries": 10, "is_aiohttp": False}
    with teacher_process(**FAULTY) as teacher:
        result = run_contender("plain_client", teacher, settings, tmp_path / "plain")
    assert result.served.num_accepted > 0
    who = f"plain asyncio, openai's 10 retries, {in_flight} in flight"
    note("limited", who, result.served.num_accepted, result.served.seconds, told(result))


def test_slow_calls_hold_up_no_other(num_rows: int, is_quick: bool, note: Note, tmp_path: Path) -> None:
    """Twice the rows, so that what happens within a slow call's minute lies between the percentiles."""
    result = run_ours(2, 2 * num_rows, SLOW, tmp_path)
    served = result.served
    target = "steady >= 90 %, lost 0"
    note("1 % take 60 s", "ours, 2 workers", served.num_accepted, served.seconds, told(result), target)
    assert result.num_lost == 0
    if not is_quick:
        assert served.steady_share(PER_MINUTE) >= 0.90, told(result)


def run_ours(workers: int, num_rows: int, faults: dict[str, Any], tmp_path: Path) -> Result:
    write_reports(tmp_path / "reports.csv", num_rows)
    settings = {
        "reports": str(tmp_path / "reports.csv"),
        "workers": workers,
        "nodes": 2,
        "endpoint": ENDPOINT,
    }
    with teacher_process(**faults) as teacher:
        return run_contender("ours", teacher, settings, tmp_path / "ours")
