"""`asclepius estimate`: what is asked is the sample, is kept, and is what the run would ask."""

import io
from collections.abc import Sequence
from pathlib import Path

import pytest
from command_here import run_here
from rich.console import Console

from asclepius_ray.artifacts import Folder, read_manifest
from asclepius_ray.chat.config import OFFLINE_MODEL, PriceConfig
from asclepius_ray.chat.journal.journal import Journal
from asclepius_ray.chat.offline.server import OfflineTeacher
from asclepius_ray.run import load_run
from asclepius_ray.summary import print_estimate
from asclepius_ray.synthesis.estimate import PresentLimits, reckon
from asclepius_ray.synthesis.stage import JOURNAL_NAME
from asclepius_ray.synthesis.walk import RowResult, StepUsage

PROJECT = Path(__file__).parents[2]


def result_of(number: int, **usage: StepUsage) -> RowResult:
    state = "ok" if "answer" in usage else "rejected"
    return RowResult(
        number, str(number), number, "", "", state, "", "", "", "", "", "question_answering", usage
    )


def sample() -> list[RowResult]:
    rows = [
        result_of(
            number,
            note=StepUsage(1, 100 * number, 10 * number),
            question=StepUsage(2, 50, 5),
            answer=StepUsage(1, 60, 6),
        )
        for number in range(1, 10)
    ]
    return [*rows, result_of(10, note=StepUsage(1, 1000, 100))]


def test_the_whole_is_the_sample_times_its_share_of_the_rows() -> None:
    price = PriceConfig(input_usd_per_million_tokens=1.0, output_usd_per_million_tokens=10.0)
    found = reckon(sample(), 1000, price, PresentLimits(60.0))
    prompt = 100 * 45 + 9 * 110 + 1000
    completion = 10 * 45 + 9 * 11 + 100
    assert (found.num_sampled, found.num_ok, found.num_failed) == (10, 9, 0)
    assert found.calls == 100 * (9 * 4 + 1)
    assert found.tokens == 100 * (prompt + completion)
    assert found.cost_usd == pytest.approx(100 * (prompt * 1e-6 + completion * 1e-5))
    assert found.hours == pytest.approx(3700 / 60 / 60)
    note = found.spreads[0]
    assert (note.step, note.num_rows, note.prompt_p50, note.prompt_p90) == ("note", 10, 500, 900)
    assert (note.completion_p50, note.completion_p90) == (50, 90)


def test_without_price_and_limits_cost_and_time_are_unknown_and_not_nothing() -> None:
    found = reckon(sample(), 1000, None, PresentLimits())
    assert found.cost_usd is None
    assert found.hours is None


def test_a_cost_that_nobody_knows_is_printed_as_unknown() -> None:
    console = Console(record=True, file=io.StringIO())
    run = load_run(str(PROJECT / "jobs/runs/quickstart.toml"))
    print_estimate(console, run, reckon(sample(), 1000, None, PresentLimits()))
    assert "cost    unknown: set [teacher.price]" in console.export_text()


@pytest.mark.whole
def test_a_second_estimate_and_the_run_itself_buy_nothing_of_the_sample_again(
    ray_cluster: str, tmp_path: Path
) -> None:
    with OfflineTeacher() as teacher:
        arguments = [
            "jobs/runs/quickstart.toml",
            *("--set", f"root={tmp_path / 'run'}", "--set", f"teacher.base_url={teacher.base_url}"),
            *("--set", "input.limit=40", "--set", f"teacher.model={OFFLINE_MODEL}"),
        ]

        def call(*command: str, changes: Sequence[str] = ()) -> str:
            sets = [part for change in changes for part in ("--set", change)]
            code, said, complaints = run_here(*command, *arguments, *sets)
            assert code == 0, said + complaints
            return said

        price = "{input_usd_per_million_tokens = 1, output_usd_per_million_tokens = 2}"
        said = call("estimate", changes=["teacher.transport=batch", f"teacher.price={price}"])
        bought = sum(teacher.requests_answered.values())
        assert "20 rows" in said
        assert 20 <= bought <= 60
        # A sample is asked call by call, and booked at what that costs.
        assert teacher.batches.batches == {}
        entries = Journal.open(Folder(str(tmp_path / "run" / JOURNAL_NAME))).totals().values()
        booked_usd = sum(step.known_usd for step in entries)
        tokens_usd = sum(step.prompt_tokens + 2 * step.completion_tokens for step in entries) / 1e6
        assert booked_usd == pytest.approx(tokens_usd)
        again = call("estimate", changes=["teacher.requests_per_minute=60", f"teacher.price={price}"])
        assert sum(teacher.requests_answered.values()) == bought
        call("run", "synthesize")
        assert teacher.bought_twice == 0
        assert sum(teacher.requests_answered.values()) > bought
    used = read_manifest(Folder(str(tmp_path / "run" / "dataset"))).details["usage"].values()
    calls = sum(step["calls"] for step in used)
    tokens_in, tokens_out = (
        sum(step[f"{kind}_tokens"] for step in used) for kind in ("prompt", "completion")
    )
    assert told(again, "calls") == pytest.approx(calls, rel=0.1)
    assert told(again, "tokens") == pytest.approx(tokens_in + tokens_out, rel=0.15)
    assert told(again, "cost") == pytest.approx((tokens_in + 2 * tokens_out) / 1e6, rel=0.15, abs=0.005)
    # Through batches the whole costs half.
    assert told(said, "cost") == pytest.approx(told(again, "cost") / 2, abs=0.01)
    assert told(again, "time") == pytest.approx(calls / 60 / 60, abs=0.06)
    for step in ("note", "question", "answer"):
        [line] = [line for line in again.splitlines() if line.split()[:1] == [step]]
        _step, rows, *tokens = line.split()
        assert int(rows) <= 20
        assert 0 < int(tokens[0]) <= int(tokens[1])
        assert 0 < int(tokens[2]) <= int(tokens[3])


def told(said: str, what: str) -> float:
    """The number behind a word at the beginning of a line."""
    [line] = [line for line in said.splitlines() if line.split()[:1] == [what] and ":" not in line]
    return float(line.split()[1].replace(",", ""))
