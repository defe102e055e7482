"""Models and a judge on one account, over real HTTP: one limit and one budget for all of them."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chat_server import serving_chat

from asclepius_ray.artifacts import Folder
from asclepius_ray.chat.account_limits import with_account_limits
from asclepius_ray.chat.config import OFFLINE_MODEL, EndpointConfig, PriceConfig
from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.chat.offline.faults import Faults
from asclepius_ray.chat.offline.server import OfflineTeacher
from asclepius_ray.errors import BudgetError, ConfigError, EndpointError
from asclepius_ray.evaluation.asking import JOURNALS_NAME, Seat
from asclepius_ray.evaluation.config import EvaluationConfig
from asclepius_ray.evaluation.exam import Exam, Outcome, hold
from asclepius_ray.evaluation.records import Item, ItemKind
from asclepius_ray.evaluation.status import STATUS_NAME
from asclepius_ray.progress import Progress
from asclepius_ray.run import parse_run

PRICE = PriceConfig(input_usd_per_million_tokens=10.0, output_usd_per_million_tokens=10.0)
ACCOUNT = "https://provider/v1 KEY"


def items(count: int) -> list[Item]:
    """With the tags by which the offline teacher knows what it is asked, as a model too."""

    def item(number: int) -> Item:
        note = f"Patient {number} had fever of 39 C and was given 500 mg of aspirin. She went home well."
        question = f"<question>Which drug was given to patient {number}?</question>"
        return Item(f"i{number}", f"n{number}", ItemKind.TEST, "", note, question, "", f"<note>{note}</note>")

    return [item(number) for number in range(count)]


def exam_of(endpoint: Endpoint, num_items: int, **settings: Any) -> Exam:
    """Two models and a judge at the same address, each with the limits of the endpoint."""
    config = EvaluationConfig.model_validate(
        {
            "models": ("one", "two"),
            "endpoints": {name: {"base_url": "http://h/v1", "model": name} for name in ("one", "two")},
            "max_new_tokens": 64,
            "orders": 1,
            **settings,
        }
    )
    models = {name: Seat(f"models/{name}", endpoint, account=ACCOUNT) for name in config.models}
    judges = {"judge": Seat("judges/judge", endpoint, account=ACCOUNT)}
    return Exam(items(num_items), models, {}, judges, config, seed=7)


def hold_here(exam: Exam, folder: Path) -> Outcome:
    return hold(exam, Folder(str(folder)), Progress())


def endpoint_at(teacher: OfflineTeacher, **settings: Any) -> Endpoint:
    return Endpoint(teacher.base_url, OFFLINE_MODEL, is_offline=True, timeout_seconds=20, **settings)


def most_within(moments: list[float], seconds: float) -> int:
    return max(sum(start <= moment < start + seconds for moment in moments) for start in moments)


def test_two_models_and_a_judge_of_one_account_keep_its_one_limit(tmp_path: Path) -> None:
    per_minute = 1200
    with OfflineTeacher(faults=Faults(requests_per_minute=per_minute, latency_seconds=0.02)) as teacher:
        exam = exam_of(endpoint_at(teacher, requests_per_minute=per_minute), 20)
        outcome = hold_here(exam, tmp_path)
        assert teacher.refusals == 0
        assert len(teacher.accepted_at) == 20 * 3
        # Of 20 a second, with what 0.4 s of a stall may be caught up with.
        assert most_within(teacher.accepted_at, 1.0) <= 20 + 8 + 1
        assert teacher.accepted_at[-1] - teacher.accepted_at[0] >= 59 / 20 - 0.5
    assert not any(answer.failure for answer in outcome.answers)


def test_a_refusal_counts_for_the_one_that_met_it_and_not_for_all_of_its_account(tmp_path: Path) -> None:
    with OfflineTeacher(faults=Faults(requests_per_minute=600, latency_seconds=0.02)) as teacher:
        hold_here(exam_of(endpoint_at(teacher), 8), tmp_path)
        seats = json.loads((tmp_path / STATUS_NAME).read_text())["seats"].values()
        assert 0 < teacher.refusals == sum(seat["refusals"] for seat in seats)


def test_two_models_and_a_judge_of_one_account_share_its_places_in_flight(tmp_path: Path) -> None:
    with OfflineTeacher(faults=Faults(latency_seconds=0.02)) as teacher:
        started = time.monotonic()
        outcome = hold_here(exam_of(endpoint_at(teacher, max_in_flight=2), 20), tmp_path)
        assert teacher.most_in_flight == 2
        assert sum(teacher.requests_answered.values()) == 20 * 3
        # 30 turns of two; a place that nobody uses is not held back for a heartbeat.
        assert time.monotonic() - started < 12
    assert not any(answer.failure for answer in outcome.answers)


def test_the_budget_of_the_evaluation_is_never_passed_and_a_higher_one_buys_only_what_is_missing(
    tmp_path: Path,
) -> None:
    with OfflineTeacher() as teacher:
        endpoint = endpoint_at(teacher, price=PRICE)

        def charged_usd() -> float:
            return (teacher._service.prompt_tokens + teacher._service.completion_tokens) * 1e-5

        def num_answered() -> int:
            return sum(teacher.requests_answered.values())

        budget_usd = 0.08
        with pytest.raises(BudgetError, match=r"evaluation\.budget_usd = 0\.08 is reached"):
            hold_here(exam_of(endpoint, 20, budget_usd=budget_usd), tmp_path)
        assert 0.5 * budget_usd < charged_usd() <= budget_usd
        first = num_answered()
        assert 0 < first < 60
        with pytest.raises(BudgetError):
            hold_here(exam_of(endpoint, 20, budget_usd=budget_usd), tmp_path)
        assert charged_usd() <= budget_usd
        mark = json.loads((tmp_path / JOURNALS_NAME / "spending.json").read_text())["mark_usd"]
        assert charged_usd() <= mark + 1e-9 <= budget_usd
        shown = json.loads((tmp_path / STATUS_NAME).read_text())["purse"]
        assert shown["budget_usd"] == budget_usd
        assert shown["settled_usd"] == pytest.approx(charged_usd())
        hold_here(exam_of(endpoint, 20, budget_usd=5.0), tmp_path)
        assert num_answered() == 60


def test_what_was_bought_without_a_budget_and_by_others_counts_too(tmp_path: Path) -> None:
    with OfflineTeacher() as teacher:
        exam = exam_of(endpoint_at(teacher, price=PRICE), 5)
        hold_here(exam, tmp_path)
        charged_usd = (teacher._service.prompt_tokens + teacher._service.completion_tokens) * 1e-5
        capped = replace(exam, config=exam.config.model_copy(update={"budget_usd": charged_usd}))
        hold_here(capped, tmp_path)
        assert sum(teacher.requests_answered.values()) == 15
        another = {"judge": replace(exam.judges["judge"], identity="another judge")}
        with pytest.raises(BudgetError):
            hold_here(replace(capped, judges=another), tmp_path)
        assert sum(teacher.requests_answered.values()) == 15


def test_sections_of_one_account_take_the_limits_that_one_of_them_tells() -> None:
    def section(**settings: Any) -> EndpointConfig:
        return EndpointConfig.model_validate({"base_url": "https://a/v1", "model": "m", **settings})

    sections = {
        "judge": section(requests_per_minute=500, max_in_flight=8),
        "evaluation.endpoints.one": section(base_url="https://a/v1/", tokens_per_minute=9000),
        "evaluation.endpoints.other": section(api_key_env="OTHER_KEY", requests_per_minute=7),
        "evaluation.endpoints.served": EndpointConfig(model_path="somewhere/model", requests_per_minute=9),
    }
    limits = {
        path: (config.requests_per_minute, config.tokens_per_minute, config.max_in_flight)
        for path, config in with_account_limits(sections).items()
    }
    assert limits == {
        "judge": (500, 9000, 8),
        "evaluation.endpoints.one": (500, 9000, 8),
        "evaluation.endpoints.other": (7, 0, 64),
        "evaluation.endpoints.served": (9, 0, 64),
    }


def test_sections_of_one_account_that_tell_different_limits_are_refused_by_name() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_run(run_text("requests_per_minute = 5", "requests_per_minute = 6"), "run.toml")
    assert "judge.requests_per_minute is 5 and evaluation.endpoints.one.requests_per_minute is 6" in str(
        caught.value
    )


def test_a_budget_of_the_evaluation_wants_a_price_of_every_address() -> None:
    price = "price = {input_usd_per_million_tokens = 1, output_usd_per_million_tokens = 2}"
    parse_run(run_text(price, price, budget_usd=3), "run.toml")
    with pytest.raises(ConfigError, match=r"without evaluation\.endpoints\.one\.price"):
        parse_run(run_text(price, "", budget_usd=3), "run.toml")


def test_the_budget_of_an_evaluation_is_no_part_of_what_it_is_made_from() -> None:
    assert EvaluationConfig(budget_usd=3).fingerprint() == EvaluationConfig().fingerprint()


def run_text(judge: str, model: str, budget_usd: float = 0) -> str:
    address = 'base_url = "https://provider.example/v1"\nmodel = "m"\n'
    return (
        f'name = "x"\nroot = "r"\n[judge]\n{address}{judge}\n[evaluation]\nmodels = ["one"]\n'
        f"budget_usd = {budget_usd}\n[evaluation.endpoints.one]\n{address}{model}\n"
    )


def slow_exam(tmp_path: Path, slow_url: str, broken_url: str) -> Exam:
    """The first model's key is refused while the second one's only answer is on its way."""
    slow = Endpoint(slow_url, "slow", max_attempts=1, timeout_seconds=30)
    exam = exam_of(slow, 1)
    broken = Endpoint(broken_url, "broken", max_attempts=1)
    return replace(exam, seats={"one": Seat("models/one", broken), "two": exam.seats["two"]})


def test_an_answer_that_is_on_its_way_when_another_endpoint_fails_is_waited_for_and_kept(
    tmp_path: Path,
) -> None:
    seconds = 5.5
    asked: list[float] = []

    def slowly(body: dict[str, Any]) -> str:
        asked.append(time.monotonic())
        time.sleep(seconds)
        return "good"

    def refuse(body: dict[str, Any]) -> int:
        time.sleep(0.5)
        return 401

    with serving_chat(slowly) as slow_url, serving_chat(refuse) as broken_url:
        exam = slow_exam(tmp_path, slow_url, broken_url)
        with pytest.raises(EndpointError):
            hold_here(exam, tmp_path)
        assert time.monotonic() - asked[0] >= seconds
        again = replace(exam, seats={"two": exam.seats["two"]}, judges={})
        again = replace(again, config=again.config.model_copy(update={"models": ("two",)}))
        outcome = hold_here(again, tmp_path)
    assert [answer.text for answer in outcome.answers] == ["good"]
    assert len(asked) == 1
