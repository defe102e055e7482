"""1,000 items, five models, two orders: one limit, one budget, and what is bought stays bought."""

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from chat_server import prompt_in, serving_chat

from asclepius_ray.artifacts import Folder
from asclepius_ray.chat.config import PriceConfig
from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.errors import BudgetError
from asclepius_ray.evaluation.asking import Seat
from asclepius_ray.evaluation.config import EvaluationConfig
from asclepius_ray.evaluation.records import Item, ItemKind
from asclepius_ray.evaluation.stage import EvaluationPlan, Measured, evaluate
from asclepius_ray.evaluation.test_set import TestSet, note_id_of
from asclepius_ray.progress import Progress

pytestmark = pytest.mark.long

MODELS = ("a", "b", "c", "d", "e")
NUM_ITEMS, NUM_NOTES, NUM_ORDERS = 1000, 250, 2
NUM_JUDGED = NUM_ORDERS * NUM_ITEMS
REQUESTS_PER_MINUTE = 6000
PRICE = PriceConfig(input_usd_per_million_tokens=100.0, output_usd_per_million_tokens=100.0)
USD_PER_CALL = 12 * 100 / 1e6
"""Of what the test's server says that it used."""


def items() -> list[Item]:
    found = []
    for number in range(NUM_ITEMS):
        note = f"Patient {number % NUM_NOTES} had a fever and was given {number % NUM_NOTES} mg of a drug."
        question = f"What is item {number} about?"
        item = Item(f"row {number}", note_id_of(note), ItemKind.TEST.value, "QA", note, question, "", note)
        found.append(item)
    return found


def test_seven_thousand_calls_keep_the_limit_and_the_budget_and_are_bought_once(
    ray_cluster: str, tmp_path: Path
) -> None:
    asked: Counter[tuple[str, str]] = Counter()
    judged_at: list[float] = []

    def answer(body: dict[str, Any]) -> str:
        asked[body["model"], prompt_in(body)] += 1
        if body["model"] != "judge":
            return f"{body['model']} says so"
        judged_at.append(time.monotonic())
        return "4 3 2 2 1"

    def plan_with(budget_usd: float, url: str) -> EvaluationPlan:
        judge = Endpoint(
            base_url=url,
            model="judge",
            requests_per_minute=REQUESTS_PER_MINUTE,
            budget_usd=budget_usd,
            price=PRICE,
        )
        seats = {model: Seat(model, Endpoint(base_url=url, model=model)) for model in MODELS}
        endpoints = {model: {"base_url": url, "model": model} for model in MODELS}
        config = EvaluationConfig.model_validate(
            {"models": MODELS, "endpoints": endpoints, "orders": NUM_ORDERS, "max_in_flight": 64}
        )
        return EvaluationPlan("scale", config, seats, {"judge": Seat("judge.judge", judge)}, 7, 2048)

    root = Folder(str(tmp_path))
    test_set = TestSet("made", items())
    with serving_chat(answer) as url:
        half = NUM_JUDGED / 2 * USD_PER_CALL
        with pytest.raises(BudgetError):
            evaluate(root, plan_with(half, url), test_set, Measured({}), {}, Progress())
        bought_for_half = len(judged_at)
        assert bought_for_half * USD_PER_CALL <= half + 1e-9
        # What one call may cost at most is set aside for each that is on its way.
        assert bought_for_half > 0.5 * NUM_JUDGED / 2
        evaluate(root, plan_with(10 * half, url), test_set, Measured({}), {}, Progress())
    assert len(asked) == NUM_ITEMS * len(MODELS) + NUM_JUDGED
    assert max(asked.values()) == 1
    scores = json.loads(root.child("evaluation").read_bytes("scores.json"))
    assert scores["judges"]["judge"]["requests"] == NUM_JUDGED
    assert scores["judges"]["judge"]["cost_usd"] == pytest.approx(NUM_JUDGED * USD_PER_CALL)
    for model in MODELS:
        assert scores["models"][model]["grades"]["judge"]["over_all"]["judged"] == NUM_ITEMS
    for calls in (judged_at[:bought_for_half], judged_at[bought_for_half:]):
        # One second's worth may come at once in the beginning.
        allowed = (calls[-1] - calls[0] + 1.0) * REQUESTS_PER_MINUTE / 60
        assert len(calls) <= 1.05 * allowed
