"""Models and judges over real HTTP, the answer loss on a real Ray cluster: the whole stage."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from asclepius_ray.artifacts import Folder, Manifest, is_finished
from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.chat.offline.server import OfflineTeacher
from asclepius_ray.errors import EndpointError, EvaluationError
from asclepius_ray.evaluation.answer_loss import RowLoss
from asclepius_ray.evaluation.asking import Seat
from asclepius_ray.evaluation.config import EvaluationConfig
from asclepius_ray.evaluation.records import GRADES_NAME, Grade, read_records
from asclepius_ray.evaluation.stage import EvaluationPlan, Measured, evaluate, measure_losses
from asclepius_ray.evaluation.test_set import read_items, read_test_set
from asclepius_ray.progress import Progress
from asclepius_ray.tokens.rendering import prompt_ids
from asclepius_ray.tokens.tokenizer import load_tokenizer

pytestmark = pytest.mark.whole

Say = Callable[[str], Any]
ServeChat = Callable[[Say], Endpoint]
NUM_ITEMS = 10


def _plan(models: dict[str, Endpoint], judge: Endpoint, seed: int = 7, **settings: Any) -> EvaluationPlan:
    values = {"models": tuple(models), "max_new_tokens": 64, "max_in_flight": 4, **settings}
    config = EvaluationConfig.model_validate(values)
    seats = {name: Seat(f"models/{name}", endpoint) for name, endpoint in models.items()}
    return EvaluationPlan("test", config, seats, {"judge": Seat("judges/judge", judge)}, seed, 512)


def _evaluate(root: Folder, plan: EvaluationPlan) -> tuple[Manifest, dict[str, Any]]:
    test_set = read_test_set(root, plan.config)
    losses = measure_losses(root, plan.config, test_set, plan.sequence_length, Progress())
    manifest = evaluate(root, plan, test_set, Measured(losses), {"seed": plan.seed}, Progress())
    return manifest, json.loads(root.child("evaluation").read_bytes("scores.json"))


def _grades(root: Folder) -> list[Grade]:
    return read_records(root.child("evaluation"), GRADES_NAME, Grade)


def _score(scores: dict[str, Any], model: str) -> dict[str, Any]:
    found: dict[str, Any] = scores["models"][model]["grades"]["judge"]["over_all"]
    return found


def _answers_in(prompt: str) -> list[str]:
    return [text.strip() for text in re.findall(r"<answer label=\"[A-Z]\">(.*?)</answer>", prompt, re.DOTALL)]


def _good(_prompt: str) -> str:
    return "good"


def _bad(_prompt: str) -> str:
    return "bad"


def _judge_by_text(prompt: str) -> str:
    return " ".join("4" if answer == "good" else "2" for answer in _answers_in(prompt))


def test_the_offline_judge_grades_every_answer_that_both_models_gave(
    ray_cluster: str, run_root: Folder, serve_chat: ServeChat
) -> None:
    models = {"trained": serve_chat(_good), "untrained": serve_chat(_bad)}
    with OfflineTeacher() as teacher:
        judge = Endpoint(base_url=teacher.base_url, model="offline-rules", is_offline=True)
        manifest, scores = _evaluate(run_root, _plan(models, judge))
    assert is_finished(run_root.child("evaluation"))
    assert manifest.counts["input"] == NUM_ITEMS
    assert manifest.counts["judged"] == NUM_ITEMS * 2 * 2
    assert set(manifest.files) == {"scores.json", "items.parquet", "answers.parquet", "grades.parquet"}
    assert scores["judges"]["judge"]["is_offline"]
    assert "not a language model" in scores["judges"]["judge"]["kind"]
    assert scores["judges"]["judge"]["cost_usd"] is None
    for model in ("trained", "untrained"):
        assert 1 <= _score(scores, model)["mean"] <= 4
        tasks = scores["models"][model]["grades"]["judge"]["tasks"]
        assert sum(task["items"] for task in tasks.values()) == NUM_ITEMS
    assert scores["answer_loss"]["difference"]["n"] == NUM_ITEMS


def test_no_model_is_loaded_again_for_what_was_measured_before(
    run_root: Folder, serve_chat: ServeChat
) -> None:
    losses = {"trained": [RowLoss(0.5, 3), RowLoss(None, 0)]}
    plan = _plan({"trained": serve_chat(_good)}, serve_chat(lambda _prompt: "4"), limit=2)
    for name in ("model", "base_model"):
        weightless = run_root.local_path / name
        files = [file.resolve() for file in weightless.iterdir() if file.suffix != ".safetensors"]
        weightless.unlink()
        weightless.mkdir()
        for file in files:
            (weightless / file.name).symlink_to(file)
    evaluate(run_root, plan, read_test_set(run_root, plan.config), Measured(losses), {}, Progress())
    scores = json.loads(run_root.child("evaluation").read_bytes("scores.json"))
    assert scores["answer_loss"]["models"]["trained"] == {
        "mean": 0.5,
        "rows": 1,
        "rows_too_long": 1,
        "answer_tokens": 3,
    }


def test_judge_order_does_not_change_scores(
    ray_cluster: str, run_root: Folder, serve_chat: ServeChat
) -> None:
    models = {"trained": serve_chat(_good), "untrained": serve_chat(_bad)}
    judge = serve_chat(_judge_by_text)
    places = []
    for seed in (1, 2):
        _, scores = _evaluate(run_root, _plan(models, judge, seed, orders=1))
        assert _score(scores, "trained")["mean"] == 4.0
        assert _score(scores, "untrained")["mean"] == 2.0
        places.append([grade.place for grade in _grades(run_root) if grade.model == "trained"])
    assert places[0] != places[1]
    assert set(places[0]) == {0, 1}


@pytest.mark.parametrize("orders", [1, 2])
def test_a_judge_who_always_prefers_the_first_answer_is_seen_and_gives_no_model_an_advantage(
    ray_cluster: str, run_root: Folder, serve_chat: ServeChat, orders: int
) -> None:
    models = {"trained": serve_chat(_good), "untrained": serve_chat(_bad)}
    _, scores = _evaluate(run_root, _plan(models, serve_chat(lambda _prompt: "4 1"), orders=orders))
    assert [_score(scores, model)["mean"] for model in models] == [2.5, 2.5]
    position = scores["positions"]["judge"]
    assert position["first_minus_last"]["value"] == 3.0
    assert position["first_minus_last"]["low"] > 0
    assert position["orders_agree"] == (0.0 if orders == 2 else None)
    (pair,) = scores["comparisons"]["judge"]["over_all"]
    assert pair["difference"] == 0.0
    assert pair["p_adjusted"] > 0.5


def test_an_unreadable_reply_is_asked_for_once_more_and_is_never_a_score(
    ray_cluster: str, run_root: Folder, serve_chat: ServeChat
) -> None:
    asked: dict[str, int] = {}

    def judge_sometimes(prompt: str) -> str:
        asked[prompt] = asked.get(prompt, 0) + 1
        patient = int(re.findall(r"patient (\d+)", prompt)[0])
        if patient < 3:
            return "Both answers are good, I would say 3 and 3."
        return "The grades are below." if patient < 6 and asked[prompt] == 1 else "3 3"

    models = {"trained": serve_chat(_good), "untrained": serve_chat(_bad)}
    manifest, scores = _evaluate(run_root, _plan(models, serve_chat(judge_sometimes), orders=1))
    assert manifest.counts["judge_unreadable"] == 3 * 2
    assert manifest.counts["judged"] == (NUM_ITEMS - 3) * 2
    assert scores["judges"]["judge"]["unreadable_replies"] == 3 * 2 + 3
    assert max(asked.values()) == 2
    for model in models:
        over_all = _score(scores, model)
        assert over_all["mean"] == 3.0
        assert (over_all["judged"], over_all["unjudged"]) == (7, 3)
    unjudged = [grade for grade in _grades(run_root) if grade.verdict == "judge_unreadable"]
    assert len(unjudged) == 6
    assert all(grade.grade is None for grade in unjudged)


def test_an_item_that_one_model_did_not_answer_is_judged_for_none(
    ray_cluster: str, run_root: Folder, serve_chat: ServeChat
) -> None:
    judged: list[int] = []

    def judge(prompt: str) -> str:
        judged.append(len(_answers_in(prompt)))
        return "3 2"

    models = {
        "trained": serve_chat(_good),
        "untrained": serve_chat(lambda prompt: 500 if "patient 4 " in prompt else "bad"),
    }
    manifest, scores = _evaluate(run_root, _plan(models, serve_chat(judge), orders=1))
    assert judged == [2] * (NUM_ITEMS - 1)
    assert (manifest.counts["answer_failed"], manifest.counts["failed_answers"]) == (2, 1)
    assert scores["models"]["untrained"]["failed"] == {"server_error": 1}
    assert _score(scores, "untrained")["failed"] == 1
    trained = _score(scores, "trained")
    assert (trained["judged"], trained["unjudged"], trained["failed"]) == (NUM_ITEMS - 1, 1, 0)


def test_each_answer_alone_is_judged_whatever_became_of_the_others(
    ray_cluster: str, run_root: Folder, serve_chat: ServeChat
) -> None:
    models = {
        "trained": serve_chat(_good),
        "untrained": serve_chat(lambda prompt: 500 if "patient 4 " in prompt else "bad"),
    }
    plan = _plan(models, serve_chat(_judge_by_text), protocol="single")
    _, scores = _evaluate(run_root, plan)
    assert (_score(scores, "trained")["mean"], _score(scores, "trained")["judged"]) == (4.0, NUM_ITEMS)
    assert (_score(scores, "untrained")["mean"], _score(scores, "untrained")["judged"]) == (
        2.0,
        NUM_ITEMS - 1,
    )
    assert scores["protocol"]["orders"] == 1


def test_reasons_are_kept_beside_their_grades(
    ray_cluster: str, run_root: Folder, serve_chat: ServeChat
) -> None:
    judge = serve_chat(lambda _prompt: "3 1\nA: it names the drug.\nB: no dose.")
    models = {"trained": serve_chat(_good), "untrained": serve_chat(_bad)}
    _evaluate(run_root, _plan(models, judge, reasons=True, limit=2))
    assert {(grade.place, grade.grade, grade.reason) for grade in _grades(run_root)} == {
        (0, 3, "it names the drug."),
        (1, 1, "no dose."),
    }


def test_two_judges_are_shown_side_by_side_and_compared(
    ray_cluster: str, run_root: Folder, serve_chat: ServeChat
) -> None:
    models = {"trained": serve_chat(_good), "untrained": serve_chat(_bad)}
    plan = _plan(models, serve_chat(_judge_by_text))
    second = Seat("judges/strict", serve_chat(lambda prompt: _judge_by_text(prompt).replace("2", "1")))
    plan = replace(plan, judges={**plan.judges, "strict": second})
    _, scores = _evaluate(run_root, plan)
    assert scores["models"]["untrained"]["grades"]["strict"]["over_all"]["mean"] == 1.0
    assert scores["models"]["untrained"]["grades"]["judge"]["over_all"]["mean"] == 2.0
    (compared,) = scores["judges_compared"]
    assert compared["judges"] == ["judge", "strict"]
    assert compared["pairs"] == NUM_ITEMS * 2
    assert compared["mean_difference"]["value"] == 0.5


def test_a_failed_answer_is_asked_anew_by_the_next_run(
    ray_cluster: str, run_root: Folder, serve_chat: ServeChat
) -> None:
    is_broken = True
    plan = _plan(
        {"trained": serve_chat(lambda prompt: 500 if is_broken and "patient 1 " in prompt else "good")},
        serve_chat(lambda _prompt: "4"),
        limit=3,
    )
    assert _evaluate(run_root, plan)[1]["models"]["trained"]["failed"] == {"server_error": 1}
    is_broken = False
    again = _evaluate(run_root, plan)[1]
    assert again["models"]["trained"]["failed"] == {}
    assert _score(again, "trained")["judged"] == 3


def test_what_was_bought_is_not_bought_again_and_gives_the_same_figures(
    ray_cluster: str, run_root: Folder, serve_chat: ServeChat
) -> None:
    num_asked = 0

    def count(reply: Callable[[str], str]) -> Say:
        def say(prompt: str) -> str:
            nonlocal num_asked
            num_asked += 1
            return reply(prompt)

        return say

    models = {"trained": serve_chat(count(_good)), "untrained": serve_chat(count(_bad))}
    plan = _plan(models, serve_chat(count(_judge_by_text)))
    first = _evaluate(run_root, plan)[1]
    assert num_asked == NUM_ITEMS * 4
    again = _evaluate(run_root, plan)[1]
    assert num_asked == NUM_ITEMS * 4
    for scores in (first, again):
        del scores["seconds"], scores["written_unix"]
    assert first == again


def test_a_model_that_was_trained_anew_is_asked_again(
    ray_cluster: str, run_root: Folder, serve_chat: ServeChat
) -> None:
    plan = _plan({"trained": serve_chat(_bad)}, serve_chat(_judge_by_text), limit=2)
    assert _score(_evaluate(run_root, plan)[1], "trained")["mean"] == 2.0
    anew = replace(
        plan, models={"trained": Seat("models/trained", serve_chat(_good), identity="other weights")}
    )
    assert _score(_evaluate(run_root, anew)[1], "trained")["mean"] == 4.0


def test_an_answer_that_is_cut_at_the_token_limit_or_empty_is_judged_too(
    ray_cluster: str, run_root: Folder, serve_chat: ServeChat
) -> None:
    models = {
        "trained": serve_chat(lambda _prompt: ("good", "length")),
        "untrained": serve_chat(lambda _prompt: ""),
    }
    manifest, scores = _evaluate(run_root, _plan(models, serve_chat(_judge_by_text), limit=4))
    assert manifest.counts["judged"] == 4 * 2 * 2
    assert scores["models"]["trained"]["cut_at_token_limit"] == 4
    assert scores["models"]["untrained"]["cut_at_token_limit"] == 0


def test_nothing_judged_is_an_error_that_says_why_and_leaves_no_artefact(
    ray_cluster: str, run_root: Folder, serve_chat: ServeChat
) -> None:
    models = {"trained": serve_chat(_good), "untrained": serve_chat(_bad)}
    with pytest.raises(EvaluationError, match="judge: unreadable"):
        _evaluate(run_root, _plan(models, serve_chat(lambda _prompt: "I cannot say."), limit=2))
    assert not is_finished(run_root.child("evaluation"))


def test_a_refused_key_of_the_judge_ends_the_evaluation(
    ray_cluster: str, run_root: Folder, serve_chat: ServeChat
) -> None:
    models = {"trained": serve_chat(_good)}
    with OfflineTeacher(api_key="right") as teacher:
        judge = Endpoint(base_url=teacher.base_url, model="offline-rules", api_key="wrong-key")
        with pytest.raises(EndpointError) as caught:
            _evaluate(run_root, _plan(models, judge, limit=2))
    assert "wrong-key" not in str(caught.value)


def test_the_models_are_asked_with_the_prompt_that_they_were_trained_with(
    ray_cluster: str, run_root: Folder, serve_chat: ServeChat
) -> None:
    prompts: list[str] = []

    def answer(prompt: str) -> str:
        prompts.append(prompt)
        return "good"

    plan = _plan({"trained": serve_chat(answer)}, serve_chat(lambda _prompt: "4"), limit=2)
    _evaluate(run_root, plan)
    assert all(prompt.startswith("Read the clinical note") and "### Answer" in prompt for prompt in prompts)
    assert len(prompts) == 2


def test_a_note_that_does_not_fit_is_shortened_for_the_models_and_whole_for_the_judge(
    ray_cluster: str, run_root: Folder, serve_chat: ServeChat
) -> None:
    seen: dict[str, list[str]] = {"model": [], "judge": []}

    def remember(who: str, reply: str) -> Say:
        def say(prompt: str) -> str:
            seen[who].append(prompt)
            return reply

        return say

    plan = _plan(
        {"trained": serve_chat(remember("model", "good"))}, serve_chat(remember("judge", "4")), limit=2
    )
    whole = _evaluate(run_root, plan)[1]
    tokenizer = load_tokenizer(run_root.child("model"))
    items = read_items(run_root.child("dataset"), limit=2)
    shortest = min(len(prompt_ids(tokenizer, item.note, item.question)) for item in items)
    too_short = replace(plan, sequence_length=shortest - 1 + plan.config.max_new_tokens)
    short = _evaluate(run_root, too_short)[1]
    assert whole["test_set"]["shortened_notes"] == 0
    assert short["test_set"]["shortened_notes"] == 2
    assert sorted("[...]" in prompt for prompt in seen["model"]) == [False, False, True, True]
    assert not any("[...]" in prompt for prompt in seen["judge"])
