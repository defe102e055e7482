"""What a run costs is its sizes times its prices, and of the size that the paper tells."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from asclepius_ray.chat.config import EndpointConfig, PriceConfig
from asclepius_ray.cli import app
from asclepius_ray.costs.gpus import SERVING_HOURS, UTILISATION, GpuPlan, read_gpu_plan
from asclepius_ray.costs.serving import serving_cost
from asclepius_ray.costs.sizes import KeptRows, Sizes, load_sizes
from asclepius_ray.costs.synthesis import plan_synthesis
from asclepius_ray.costs.training import operations_per_token, training_cost, training_tokens
from asclepius_ray.doctor.model_shapes import find_shape
from asclepius_ray.errors import ConfigError
from asclepius_ray.evaluation.estimate import AskedTexts
from asclepius_ray.pipeline import estimate_evaluation_of
from asclepius_ray.prompts.rendering import render_instruction
from asclepius_ray.run import Run, load_run
from asclepius_ray.serving.config import ServingConfig
from asclepius_ray.training.utilisation import ModelSize, causal_pairs, peak_flops

PROJECT = Path(__file__).resolve().parents[2]
GUIDE = PROJECT / "cluster" / "README.md"
SIZES = PROJECT / "cluster" / "sizes" / "paper.toml"
SEVEN, THIRTEEN, EIGHT = (f"jobs/runs/{name}.toml" for name in ("asclepius-7b", "asclepius-13b", "llama3-8b"))
A100 = GpuPlan("A100", 2.5, 312e12)
ROWS = KeptRows(1000, 2000, 200, 400)


def run_of(file: str = SEVEN, *changes: str) -> Run:
    return load_run(str(PROJECT / file), list(changes))


def gpu_hours(run: Run, rows: KeptRows, gpu: GpuPlan = A100) -> float:
    shape = find_shape(run.training)
    assert shape is not None
    return training_cost(run, shape, rows, gpu).gpu_hours


def test_tokens_are_those_of_each_phase_times_its_epochs_over_the_rows_that_are_not_held_out() -> None:
    run = run_of()
    example = (len(render_instruction("", "")) + 2600) / 4
    assert training_tokens(run, ROWS) == pytest.approx(990 * (500 + 3 * example))
    twice = KeptRows(2000, 2000, 200, 400)
    assert training_tokens(run, twice) == pytest.approx(2 * training_tokens(run, ROWS))


def test_an_example_is_never_longer_than_a_row() -> None:
    run = run_of(SEVEN, "training.phases=[{kind='instructions', epochs=1}]")
    assert training_tokens(run, KeptRows(100, 1_000_000, 200, 400)) == 99 * run.tokens.sequence_length


def test_operations_are_those_that_the_meters_of_a_training_count_without_attention() -> None:
    shape = find_shape(run_of().training)
    assert shape is not None
    multiplied = shape.parameters - shape.vocabulary_size * shape.hidden_size
    meters = ModelSize(multiplied, 0, shape.layers, shape.hidden_size)
    counted = meters.step_flops(700, causal_pairs([700])) / 700
    ours = operations_per_token(shape, recomputes=False)
    assert ours < counted < 1.02 * ours
    assert operations_per_token(shape, recomputes=True) == pytest.approx(ours * 8 / 6)


def test_adapters_save_the_gradients_of_the_weights_that_stand() -> None:
    shape = find_shape(run_of(SEVEN, "training.lora={rank=16}").training)
    whole = find_shape(run_of().training)
    assert shape is not None
    assert whole is not None
    saved = operations_per_token(whole, False) - operations_per_token(shape, False)
    assert saved == pytest.approx(2 * whole.parameters, rel=0.05)


def test_hours_fall_with_peak_and_utilisation_and_gpu_hours_do_not_depend_on_the_workers() -> None:
    hours = gpu_hours(run_of(), ROWS)
    assert gpu_hours(run_of(), ROWS, GpuPlan("B", 2.5, 624e12)) == pytest.approx(hours / 2)
    assert gpu_hours(run_of(), ROWS, GpuPlan("B", 2.5, 312e12, 0.6)) == pytest.approx(hours / 2)
    assert gpu_hours(run_of(SEVEN, "training.workers=4"), ROWS) == pytest.approx(hours)


@pytest.mark.parametrize(
    ("file", "phase", "paper_hours"),
    [(SEVEN, 0, 1 + 33 / 60), (THIRTEEN, 0, 1 + 52 / 60), (THIRTEEN, 1, 12 + 16 / 60)],
)
def test_the_papers_own_hours_on_eight_a100_are_met_within_the_bounds_that_the_guide_tells(
    file: str, phase: int, paper_hours: float
) -> None:
    run = run_of(file)
    training = run.training.model_copy(update={"phases": (run.training.phases[phase],)})
    hours = gpu_hours(run.model_copy(update={"training": training}), load_sizes(str(SIZES)).kept) / 8
    assert 0.6 < paper_hours / hours < 1.1
    if file == SEVEN:
        assert f"{hours:.1f} h said for the 7B model's epoch over the notes, 1 h 33 min" in GUIDE.read_text()


def test_serving_costs_replicas_times_gpus_times_hours_times_price() -> None:
    one = serving_cost(ServingConfig(use_gpu=True), A100)
    assert (one.fewest_gpus, one.most_gpus) == (1, 1)
    assert one.fewest_usd == one.most_usd == SERVING_HOURS * 2.5
    assert one.usd_per_million_tokens is None
    many = ServingConfig.model_validate(
        {"use_gpu": True, "engine": "vllm", "tensor_parallel": 2, "replicas": [0, 3], "models": {"b": "x/y"}}
    )
    cost = serving_cost(many, GpuPlan("A100", 3.6, 312e12, serving_hours=10, tokens_per_second=1000))
    assert (cost.fewest_gpus, cost.most_gpus) == (0, 12)
    assert (cost.fewest_usd, cost.most_usd) == (0, pytest.approx(432))
    # Two GPUs at a thousandth of a dollar a second.
    assert cost.usd_per_million_tokens == pytest.approx(2)


def test_a_synthesis_asks_every_report_three_times_with_our_own_prompts_around_its_texts() -> None:
    sizes = load_sizes(str(SIZES))
    steps = plan_synthesis(sizes, EndpointConfig())
    assert [step.role for step in steps] == ["note", "question", "answer"]
    assert all(step.calls == sizes.reports and step.cost_usd is None for step in steps)
    note, question, answer = steps
    assert note.completion_tokens == pytest.approx(sizes.reports * sizes.note_characters / 4, rel=1e-6)
    assert note.prompt_tokens > sizes.reports * sizes.report_characters / 4
    for step in (question, answer):
        assert step.prompt_tokens > note.completion_tokens
    longer = sizes.model_copy(update={"answer_characters": 2 * sizes.answer_characters})
    assert plan_synthesis(longer, EndpointConfig())[2].completion_tokens == pytest.approx(
        2 * answer.completion_tokens
    )


def test_notes_are_not_asked_for_again_and_a_limit_leaves_the_same_share_of_fewer() -> None:
    sizes = load_sizes(str(SIZES))
    of_reports = plan_synthesis(sizes, EndpointConfig())
    assert plan_synthesis(sizes, EndpointConfig(), has_notes=True) == of_reports[1:]
    fewer = sizes.limited(1000)
    assert fewer.reports == 1000
    assert fewer.rows / 1000 == pytest.approx(sizes.rows / sizes.reports, abs=0.001)
    assert sizes.limited(0) == sizes.limited(sizes.reports + 1) == sizes


def test_a_report_is_as_long_as_the_first_ones_of_the_real_file(shared_data: Path) -> None:
    import csv

    with (shared_data / "pmc_patients" / "v1_first_500.csv").open(newline="", encoding="utf-8") as stream:
        lengths = [len(row["patient"]) for row in csv.DictReader(stream)]
    assert load_sizes(str(SIZES)).report_characters == pytest.approx(sum(lengths) / len(lengths), rel=0.01)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ("reports = 3", "rows"),
        ("rows = 9", "rows is 9, and only 3 reports can become one"),
        ("note_characters = 0", "note_characters"),
        ("rows = ", "is not valid TOML"),
        ("raws = 3", "raws: there is no such setting"),
    ],
)
def test_wrong_sizes_are_named(tmp_path: Path, values: str, complaint: str) -> None:
    good = {
        "reports": 3,
        "rows": 2,
        "report_characters": 4,
        "note_characters": 4,
        "question_characters": 4,
        "answer_characters": 4,
    }
    key = values.split()[0]
    lines = [f"{name} = {value}" for name, value in good.items() if name != key]
    if key == "reports":
        lines = []
    file = tmp_path / "sizes.toml"
    file.write_text("\n".join([*lines, values]))
    with pytest.raises(ConfigError, match=re.escape(complaint)):
        load_sizes(str(file))


def test_a_gpu_is_its_data_sheet_and_the_price_that_the_user_gives() -> None:
    plan = read_gpu_plan("H100 PCIe=0", 0.5, None, 10)
    assert plan == GpuPlan("H100 PCIe", 0, peak_flops("H100 PCIe") or 0, 0.5, SERVING_HOURS, 10)
    assert read_gpu_plan("", None, None, None) is None


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("TPU=1", None, None, None), "there are A10, A100,"),
        (("A100", None, None, None), "as A100=2.50"),
        (("A100=cheap", None, None, None), "as A100=2.50"),
        (("A100=-1", None, None, None), "as A100=2.50"),
        (("A100=nan", None, None, None), "as A100=2.50"),
        (("", 0.4, None, None), "--utilisation is of a GPU"),
        (("", None, 3.0, None), "--serving-hours is of a GPU"),
        (("", None, None, 3.0), "--tokens-per-second is of a GPU"),
    ],
)
def test_a_wrong_gpu_is_refused_with_what_to_do(options: Any, complaint: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(complaint)):
        read_gpu_plan(*options)


def call(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["estimate", *arguments])
    return done.exit_code, " ".join(done.output.split())


def test_with_sizes_nobody_is_asked_and_all_four_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)
    code, said = call(SEVEN, "--sizes", str(SIZES), "--gpu", "A100=2.5", "--utilisation", "0.4")
    assert code == 0, said
    assert "note 167,034" in said
    assert "judge judge" in said
    hours = gpu_hours(run_of(), load_sizes(str(SIZES)).kept, GpuPlan("A100", 2.5, 312e12, 0.4))
    assert f"at 40% of the peak of 8 A100: {hours / 8:,.1f} hours, {hours:,.1f} GPU hours" in said
    assert f"{2.5 * hours:,.2f} USD" in said
    assert "serving 1 GPU(s) for 730 hours: 1,825.00 USD" in said


def test_a_mean_is_told_as_one_and_a_budget_as_that_of_a_fresh_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)
    price = "{input_usd_per_million_tokens=1, output_usd_per_million_tokens=1}"
    changes = ("input.limit=100", "input.kind=notes", f"teacher.price={price}", "teacher.budget_usd=5")
    sets = [part for change in changes for part in ("--set", change)]
    code, said = call(SEVEN, "--sizes", str(SIZES), *sets)
    assert code == 0, said
    assert "question 100 " in said
    assert "note 100 " not in said
    assert re.search(r"synthesis about 0\.\d\d USD; ", said)
    assert "teacher.budget_usd = 5.00 USD may be enough on a fresh root" in said


def test_what_cannot_be_reckoned_is_said_and_not_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)
    sizes = ("--sizes", str(SIZES), "--gpu", "A100=2.5")
    _, unknown = call(SEVEN, *sizes, "--set", "training.base_model=some/model")
    assert "the size of some/model is not known here" in unknown
    _, on_cpus = call("jobs/runs/quickstart.toml", *sizes)
    assert "training on CPUs" in on_cpus
    assert "serving on CPUs" in on_cpus
    _, of_a_table = call(SEVEN, *sizes, "--set", "training.dataset=rows.parquet")
    assert "training not reckoned: training.dataset is a table of its own" in of_a_table
    code, said = call(SEVEN, "--sizes", str(SIZES), "--rows", "3")
    assert (code, "leave one of them out" in said) == (2, True)


def test_the_figures_of_the_guide_are_what_the_code_computes() -> None:
    guide = GUIDE.read_text(encoding="utf-8")
    kept = load_sizes(str(SIZES)).kept
    for file in (SEVEN, THIRTEEN, EIGHT):
        run = run_of(file)
        shape = find_shape(run.training)
        assert shape is not None
        cost = training_cost(run, shape, kept, A100)
        row = f"| training, `{file}` | {cost.tokens / 1e6:,.0f} million tokens | "
        row += f"{cost.gpu_hours:,.0f} A100 hours, {cost.hours:,.1f} hours on 8 | {cost.usd:,.0f} |"
        assert row in guide, row
    for row in other_rows():
        assert row in guide, row


def other_rows() -> list[str]:
    """The guide's rows on the teacher, the judge and serving, at its example prices."""
    sizes = load_sizes(str(SIZES))
    teacher = EndpointConfig(
        price=PriceConfig(input_usd_per_million_tokens=0.5, output_usd_per_million_tokens=1.5)
    )
    steps = plan_synthesis(sizes, teacher)
    prompt, completion = (
        sum(getattr(step, f"{kind}_tokens") for step in steps) / 1e6 for kind in ("prompt", "completion")
    )
    paid = sum(step.cost_usd or math.nan for step in steps)
    price = "{input_usd_per_million_tokens=10, output_usd_per_million_tokens=30}"
    made = AskedTexts(sizes.rows, sizes.note_characters, sizes.question_characters)
    *_, judge = estimate_evaluation_of(run_of(SEVEN, f"judge.price={price}"), made)
    judged = (
        f"{judge.calls:,} calls, {(judge.prompt_tokens + judge.completion_tokens) / 1e6:,.1f} million tokens"
    )
    gpu = GpuPlan("A100", 2.5, 312e12, tokens_per_second=1000)
    serving = serving_cost(ServingConfig(use_gpu=True), gpu)
    assert serving.usd_per_million_tokens is not None
    return [
        f"| notes, questions, answers | {sum(step.calls for step in steps):,} calls | {prompt:,.0f} million "
        f"tokens in, {completion:,.0f} out, at 0.50 and 1.50 USD a million | {paid:,.0f} |",
        f"| judge | {judged} | at most, at 10 and 30 USD a million | {judge.cost_usd:,.0f} |",
        f"| serving, a month | 1 A100 | {serving.hours:,.0f} hours; {serving.usd_per_million_tokens:.2f} USD "
        f"a million tokens at 1,000 a second | {serving.fewest_usd:,.0f} |",
    ]


def test_utilisation_s_default_is_what_the_guide_says() -> None:
    assert f"Utilisation: {UTILISATION:.0%}".replace("%", " %") in GUIDE.read_text(encoding="utf-8")
    assert peak_flops("A100") == 312e12
    assert isinstance(load_sizes(str(SIZES)), Sizes)
