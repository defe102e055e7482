"""What an evaluation will need at most, reckoned from its texts: never less than what it then asks for."""

import io
from pathlib import Path
from typing import Any

import pytest
from command_here import run_here
from rich.console import Console

from asclepius_ray.chat.config import EndpointConfig
from asclepius_ray.evaluation.config import EvaluationConfig
from asclepius_ray.evaluation.estimate import AskedTexts, RoleEstimate, estimate_evaluation
from asclepius_ray.summary import print_role_estimates

PRICE = {"input_usd_per_million_tokens": 10.0, "output_usd_per_million_tokens": 30.0}
TEXTS = AskedTexts(1000, 4000, 100)


def config_of(**settings: Any) -> EvaluationConfig:
    names = ("a", "b", "c", "d", "e")
    endpoints = {name: {"base_url": "http://h/v1", "model": name, "price": PRICE} for name in names}
    return EvaluationConfig.model_validate({"models": names, "endpoints": endpoints, **settings})


def test_a_thousand_items_of_five_models_in_two_orders_are_seven_thousand_calls() -> None:
    judge = EndpointConfig.model_validate(
        {"base_url": "http://j/v1", "model": "j", "price": PRICE, "requests_per_minute": 100}
    )
    roles = estimate_evaluation(TEXTS, config_of(orders=2), judge)
    assert [role.calls for role in roles] == [1000] * 5 + [2000]
    assert roles[-1].hours == 2000 / 100 / 60
    for role in roles:
        assert role.cost_usd is not None
        assert abs(role.cost_usd - (role.prompt_tokens * 10 + role.completion_tokens * 30) / 1e6) < 1e-9
    # A note of 4,000 characters is some 1,000 tokens, and the judge reads five answers of up to 400 with it.
    assert 1_000_000 <= roles[0].prompt_tokens <= 1_500_000
    assert 2 * 3_000_000 <= roles[-1].prompt_tokens <= 2 * 4_000_000


def test_single_judging_asks_once_for_each_answer() -> None:
    roles = estimate_evaluation(TEXTS, config_of(protocol="single"), EndpointConfig())
    assert roles[-1].calls == 5000
    assert roles[-1].cost_usd is None


def test_items_that_are_made_and_further_judges_are_reckoned_too() -> None:
    judges = {"second": {"base_url": "http://k/v1", "model": "k"}}
    roles = estimate_evaluation(TEXTS, config_of(judges=judges, unanswerable=50), EndpointConfig())
    assert [role.role for role in roles] == ["a", "b", "c", "d", "e", "judge judge", "judge second"]
    assert [role.calls for role in roles] == [1050] * 5 + [2100] * 2


def test_the_command_reckons_the_evaluation_of_a_table_without_asking_anybody(
    ray_cluster: str, tmp_path: Path
) -> None:
    table = tmp_path / "table.csv"
    table.write_text("note,question,one\nFever of 39.,How high?,39\nCough.,Why?,A cold.\n")
    run_file = tmp_path / "run.toml"
    run_file.write_text(
        f'name = "x"\nroot = "{tmp_path / "root"}"\n'
        '[judge]\nbase_url = "http://127.0.0.1:9/v1"\nmodel = "j"\n'
        "[judge.price]\ninput_usd_per_million_tokens = 1.0\noutput_usd_per_million_tokens = 1.0\n"
        f'[evaluation]\nmodels = ["one"]\ntest_set = "{table}"\n[evaluation.answer_columns]\none = "one"\n'
    )
    code, said, complaints = run_here("estimate", str(run_file))
    assert code == 0, complaints
    assert "judge judge" in said
    assert "evaluation at most 0.00 USD" in said


@pytest.mark.parametrize(
    ("budget_usd", "said"),
    [(4.0, "may not be enough: the run would stop at it"), (5.0, "is enough"), (0.0, "")],
)
def test_the_estimate_warns_where_it_passes_the_budget_of_the_evaluation(
    budget_usd: float, said: str
) -> None:
    roles = [RoleEstimate(name, 10, 1000, 100, 2.5, None) for name in ("one", "judge judge")]
    stream = io.StringIO()
    budget = ("evaluation.budget_usd", budget_usd)
    print_role_estimates(Console(file=stream, width=200), "evaluation", roles, budget, is_most=True)
    assert "evaluation at most 5.00 USD" in stream.getvalue()
    assert (f"USD {said}" in stream.getvalue()) if said else ("budget" not in stream.getvalue())
