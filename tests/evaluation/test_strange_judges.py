"""Judges of whom nobody should believe a word: the page says so, and balanced orders cancel a liking."""

import hashlib
import json
import re
from collections.abc import Callable
from typing import Any

from asclepius_ray.artifacts import Folder
from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.evaluation.asking import Seat
from asclepius_ray.evaluation.config import EvaluationConfig
from asclepius_ray.evaluation.records import Item, ItemKind
from asclepius_ray.evaluation.stage import EvaluationPlan, Measured, evaluate
from asclepius_ray.evaluation.test_set import TestSet, note_id_of
from asclepius_ray.progress import Progress
from asclepius_ray.report.evaluation_page import write_evaluation_page

ServeChat = Callable[[Callable[[str], Any]], Endpoint]
NUM_NOTES = 40
MODELS = ("a", "b", "c")


def items() -> list[Item]:
    notes = [f"Patient {number} had a fever of {37 + number % 4} degrees." for number in range(NUM_NOTES)]
    return [
        Item(f"row {place}", note_id_of(note), ItemKind.TEST.value, "fever", note, "How high?", "", note)
        for place, note in enumerate(notes)
    ]


def config_of() -> EvaluationConfig:
    columns = {model: model for model in MODELS}
    return EvaluationConfig(models=MODELS, answer_columns=columns, test_set="t.csv")


def in_prose_half_of_the_time(prompt: str) -> str:
    is_odd = hashlib.sha256(prompt.encode()).digest()[0] % 2
    return "All three are quite good answers." if is_odd else "3 2 3"


def test_the_page_shows_what_is_wrong_with_each_judge(
    ray_cluster: str, tmp_path: Any, serve_chat: ServeChat
) -> None:
    root = Folder(str(tmp_path))
    config = config_of()
    judges = {
        "first": serve_chat(lambda _prompt: "4 2 1"),
        "prose": serve_chat(in_prose_half_of_the_time),
        "four": serve_chat(lambda _prompt: "4 4 4"),
    }
    seats = {name: Seat(f"judge.{name}", endpoint) for name, endpoint in judges.items()}
    plan = EvaluationPlan("strange", config, {}, seats, 7, 512, has_real_notes=False)
    given = {model: [f"{model} says 38"] * NUM_NOTES for model in MODELS}
    evaluate(root, plan, TestSet("t.csv", items(), given), Measured({}), {}, Progress())
    write_evaluation_page(root)
    page = root.child("evaluation").read_bytes("report.html").decode()
    warnings = page.partition('<h2 id="warnings">')[2].partition("<h2")[0]
    said = re.sub(r"<[^>]+>", " ", warnings)
    about = {name: [line for line in said.split("\n") if re.search(rf"\b{name}\b", line)] for name in judges}
    assert any("place" in line or "position" in line for line in about["first"]), said
    assert any("unjudged" in line or "read" in line for line in about["prose"]), said
    assert any("4" in line and "grades" in line for line in about["four"]), said


def test_a_liking_for_the_first_answer_cancels_over_balanced_orders(
    ray_cluster: str, tmp_path: Any, serve_chat: ServeChat
) -> None:
    root = Folder(str(tmp_path))
    config = config_of()
    seat = Seat("judge.first", serve_chat(lambda _prompt: "4 2 1"))
    plan = EvaluationPlan("strange", config, {}, {"first": seat}, 7, 512, has_real_notes=False)
    given = {model: [f"{model} says 38"] * 39 for model in MODELS}
    evaluate(root, plan, TestSet("t.csv", items()[:39], given), Measured({}), {}, Progress())
    scores = json.loads(root.child("evaluation").read_bytes("scores.json"))
    means = [scores["models"][model]["grades"]["first"]["over_all"]["mean"] for model in MODELS]
    assert max(means) - min(means) < 1e-9
    assert all(pair["p_adjusted"] > 0.9 for pair in scores["comparisons"]["first"]["over_all"])
    assert scores["positions"]["first"]["first_minus_last"]["low"] > 2.5
