"""A teacher without a limit that takes 0.2 s: calls a second, and calls a second of CPU time, side by side.

All send the same prompts and have as many calls in flight; all share the machine with the teacher. The
CPU time is that of all of a contender's processes from its first call to its last answer.
"""

from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import Note
from contest import Result, run_contender
from curator_environment import curator_python
from teacher_process import teacher_process
from workload import CALLS_PER_ROW, write_prompts, write_reports

FAULTS = {"latency_seconds": 0.2, "short": 1}
IN_FLIGHT = 400
NUM_CALLS = 20_000
QUICK_CALLS = 4_000
RAY_DATA_LLM_CALLS = 2_000
"""Its rate is the same from the first hundred on: 20,000 would take ten minutes."""
CURATOR_GOAL = 2.0


@dataclass(frozen=True)
class Load:
    """What is to be asked."""

    num_rows: int
    reports: Path
    prompts: Path
    few_prompts: Path


@pytest.fixture(scope="module")
def load(is_quick: bool, tmp_path_factory: pytest.TempPathFactory) -> Load:
    num_calls = QUICK_CALLS if is_quick else NUM_CALLS
    folder = tmp_path_factory.mktemp("load")
    num_rows = -(-num_calls // CALLS_PER_ROW)
    found = Load(num_rows, folder / "reports.csv", folder / "prompts.jsonl", folder / "few_prompts.jsonl")
    write_reports(found.reports, num_rows)
    write_prompts(found.prompts, found.reports, num_rows * CALLS_PER_ROW)
    write_prompts(found.few_prompts, found.reports, min(num_calls, RAY_DATA_LLM_CALLS))
    return found


@pytest.fixture(scope="module")
def ours(load: Load, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return run_ours(load, tmp_path_factory, {})


@pytest.fixture(scope="module")
def asking_alone(load: Load, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """Without holding the notes against their reports, which no other contender does."""
    return run_ours(load, tmp_path_factory, {"fidelity": [], "max_note_similarity": 1.0})


def run_ours(load: Load, tmp_path_factory: pytest.TempPathFactory, synthesis: dict[str, object]) -> Result:
    settings = {
        "reports": str(load.reports),
        "workers": 2,
        "nodes": 1,
        "endpoint": {"max_in_flight": IN_FLIGHT},
        "synthesis": synthesis,
    }
    with teacher_process(**FAULTS) as teacher:
        return run_contender("ours", teacher, settings, tmp_path_factory.mktemp("ours") / "run")


@pytest.fixture(scope="module")
def bare_loop(load: Load, tmp_path_factory: pytest.TempPathFactory) -> Result:
    settings = {"prompts": str(load.prompts), "in_flight": IN_FLIGHT, "max_retries": 0, "is_aiohttp": True}
    with teacher_process(**FAULTS) as teacher:
        return run_contender("plain_client", teacher, settings, tmp_path_factory.mktemp("bare") / "run")


@pytest.fixture(scope="module")
def bare_http(load: Load, tmp_path_factory: pytest.TempPathFactory) -> Result:
    settings = {"prompts": str(load.prompts), "in_flight": IN_FLIGHT}
    with teacher_process(**FAULTS) as teacher:
        return run_contender("bare_http", teacher, settings, tmp_path_factory.mktemp("http") / "run")


@pytest.fixture(scope="module")
def curator(load: Load, tmp_path_factory: pytest.TempPathFactory) -> Result:
    python = curator_python()
    settings = {"prompts": str(load.prompts), "requests_per_minute": 0, "in_flight": IN_FLIGHT}
    with teacher_process(**FAULTS) as teacher:
        return run_contender("curator", teacher, settings, tmp_path_factory.mktemp("curator") / "run", python)


@pytest.fixture(scope="module")
def ray_data_llm(load: Load, tmp_path_factory: pytest.TempPathFactory) -> Result:
    settings = {"prompts": str(load.few_prompts), "concurrency": 2, "batch_size": 64}
    with teacher_process(**FAULTS) as teacher:
        return run_contender("ray_data_llm", teacher, settings, tmp_path_factory.mktemp("ray") / "run")


def test_all_rows_come_through_with_the_allowed_calls_in_flight(ours: Result, load: Load, note: Note) -> None:
    show(note, "ours, 2 workers", ours, "lost 0")
    assert ours.num_lost == 0
    assert ours.served.num_accepted == load.num_rows * CALLS_PER_ROW
    assert ours.served.most_in_flight <= IN_FLIGHT


def test_ahead_of_curator(ours: Result, curator: Result, is_quick: bool, note: Note) -> None:
    ratio = ours.served.calls_per_second / curator.served.calls_per_second
    told = f"ours {ratio:.2f} times as fast"
    who = f"bespoke curator {curator.said['version']}, {IN_FLIGHT} in flight"
    show(note, who, curator, f"ours ahead, goal {CURATOR_GOAL:g} times", told)
    assert is_quick or ratio > 1, told


def test_eight_times_the_http_processor_of_ray_data(
    ours: Result, ray_data_llm: Result, is_quick: bool, note: Note
) -> None:
    ratio = ours.served.calls_per_second / ray_data_llm.served.calls_per_second
    told = f"ours {ratio:.1f} times as fast; {RAY_DATA_LLM_CALLS:,} calls, its rate does not change"
    show(note, "ray.data.llm, concurrency 2, batches of 64", ray_data_llm, "ours >= 8 times", told)
    assert is_quick or ratio >= 8, told


def test_four_fifths_of_a_bare_loop_per_cpu_second(
    ours: Result, asking_alone: Result, bare_loop: Result, bare_http: Result, is_quick: bool, note: Note
) -> None:
    show(note, "ours, 2 workers, asking alone", asking_alone, "")
    told = _shares_told(bare_loop, ours, asking_alone)
    who = f"bare loop over the official client, {IN_FLIGHT} in flight"
    show(note, who, bare_loop, "ours >= 80 % per CPU second", told)
    # Its calls cost a fifth of the official client's, and it keeps, limits and counts nothing.
    least = _shares_told(bare_http, ours, asking_alone)
    show(note, f"bare loop over aiohttp, {IN_FLIGHT} in flight", bare_http, "", least)
    assert is_quick or ours.calls_per_cpu_second / bare_loop.calls_per_cpu_second >= 0.80, told


def _shares_told(bare: Result, ours: Result, asking_alone: Result) -> str:
    with_checks = ours.calls_per_cpu_second / bare.calls_per_cpu_second
    with_daemons = ours.calls_per_cpu_second_with_daemons / bare.calls_per_cpu_second
    alone = asking_alone.calls_per_cpu_second / bare.calls_per_cpu_second
    return (
        f"ours {with_checks:.0%} of its calls per CPU second with the checks of every note against its "
        f"report ({with_daemons:.0%} with Ray's daemons), {alone:.0%} asking alone"
    )


def show(note: Note, who: str, result: Result, target: str, told: str = "") -> None:
    served = result.served
    figures = (
        f"{served.calls_per_second:.0f} calls/s, {result.calls_per_cpu_second:.0f} a CPU second "
        f"({result.calls_per_cpu_second_with_daemons:.0f} with daemons; {result.cpu_text()}); "
        f"{result.seconds:.1f} s as a whole after a start of {result.start_seconds:.1f} s; "
        f"at most {served.most_in_flight} in flight, {result.num_lost} lost"
    )
    note(
        "unlimited",
        who,
        served.num_accepted,
        served.seconds,
        f"{figures}; {told}" if told else figures,
        target,
    )
