"""scores.json of an evaluation that never was, in the form that evaluations write, and its tables."""

import json
from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any

from asclepius_ray.artifacts import Folder
from asclepius_ray.evaluation.records import (
    ANSWERS_NAME,
    GRADES_NAME,
    ITEMS_NAME,
    Answer,
    Grade,
    Item,
    ItemKind,
    Verdict,
    write_records,
)

Scores = dict[str, Any]
TASKS = ("Summarization", "Named Entity Recognition")


def interval(value: float | None, width: float = 0.1, n: int = 40) -> Scores:
    low, high = (None, None) if value is None else (value - width, value + width)
    return {"value": value, "low": low, "high": high, "n": n}


def score(mean: float | None, judged: int = 40, unjudged: int = 0, failed: int = 0) -> Scores:
    shares = {"1": 0.125, "2": 0.25, "3": 0.25, "4": 0.375} if judged else {}
    low, high = (None, None) if mean is None else (mean - 0.17, mean + 0.19)
    items = judged + unjudged + failed
    figures = {"mean": mean, "low": low, "high": high, "items": items, "judged": judged}
    lost = {"unjudged": unjudged, "not_asked": 0, "failed": failed}
    return {**figures, **lost, "grade_shares": shares}


def model(means: dict[str, float | None], tasks: Sequence[str] = TASKS) -> Scores:
    """One that nothing went wrong with."""
    return {
        "source": "folder",
        "model": "some-model",
        "temperature": 0.0,
        "is_offline": False,
        "answers": 40,
        "failed": {},
        "cut_at_token_limit": 0,
        "prompt_tokens": 40_123,
        "completion_tokens": 4_567,
        "cost_usd": None,
        "grades": {
            judge: {
                "over_all": score(mean, 40 if mean else 0, 0 if mean else 40),
                "tasks": {task: score(mean, 20 if mean else 0, 0 if mean else 20) for task in tasks},
            }
            for judge, mean in means.items()
        },
        "texts": {
            "answers": 40,
            "words": {"mean": 61.5, "median": 57.0, "p95": 120.0},
            "declined_share": 0.05,
            "refusal_share": 0.025,
            "empty_share": 0.0,
            "unfaithful": {"number": 0.125, "dose": 0.075, "drug": 0.1},
            "unfaithful_any": 0.2125,
        },
        "reference": {
            "rows": 37,
            "rouge_l": interval(0.412, 0.02, 37),
            "token_f1": interval(0.523, 0.03, 37),
            "exact": interval(0.054, 0.01, 37),
        },
        "unanswerable": {
            "items": 11,
            "declined_by_phrases": 0.636,
            "declined_by_judge": dict.fromkeys(means, 0.727),
        },
    }


def judge(is_offline: bool = False) -> Scores:
    kind = "rules, not a language model" if is_offline else "language model"
    figures = {"requests": 80, "unreadable_replies": 0, "failures": {}, "prompt_tokens": 91_234}
    return {
        "model": "grader-1",
        "is_offline": is_offline,
        "kind": kind,
        **figures,
        "completion_tokens": 321,
        "cost_usd": 1.75,
    }


def pair(a: str, b: str, difference: float, p_adjusted: float) -> Scores:
    figures = {"difference": difference, "low": difference - 0.07, "high": difference + 0.08}
    return {"a": a, "b": b, "n": 40, "notes": 36, **figures, "p": p_adjusted / 2, "p_adjusted": p_adjusted}


def positions(first_minus_last: float = 0.01, width: float = 0.1, num_places: int = 2) -> Scores:
    bias = interval(first_minus_last, width)
    means = (3 + first_minus_last, 3 + first_minus_last / 2, 3.0)
    places = [
        {"place": place, "mean": mean, "grades": 80}
        for place, mean in enumerate(means if num_places == 3 else means[::2])
    ]
    return {"places": places, "first_minus_last": bias, "orders_agree": 0.813}


def sound_scores() -> Scores:
    """Two models, one judge, nothing to warn of; alpha is ahead."""
    return {
        "run": "a-run",
        "seed": 7,
        "written_unix": 1_790_000_000,
        "seconds": 312.3,
        "test_set": {
            "name": "validation",
            "items": 40,
            "notes": 36,
            "unanswerable": 11,
            "tasks": dict.fromkeys(TASKS, 20),
            "shortened_notes": 2,
            "real_notes": False,
        },
        "protocol": {"kind": "together", "orders": 2, "reasons": False, "max_new_tokens": 400},
        "prompts": {"instruction": "e" * 64, "judge": "f" * 64},
        "judges": {"one": judge()},
        "models": {"alpha": model({"one": 3.25}), "beta": model({"one": 2.75})},
        "comparisons": {
            "one": {
                "over_all": [pair("alpha", "beta", 0.5, 0.004)],
                "tasks": {task: [pair("alpha", "beta", 0.25, 0.31)] for task in TASKS},
            }
        },
        "wins": {"one": {"against": "beta", "models": {"alpha": {"win": 21, "tie": 12, "loss": 7}}}},
        "positions": {"one": positions()},
        "judges_compared": [],
        "answer_loss": None,
        "realism": None,
    }


def full_scores() -> Scores:
    """Everything that an evaluation can measure, by two judges."""
    scores = sound_scores()
    scores["judges"]["two"] = judge(is_offline=True)
    scores["models"] = {
        "alpha": model({"one": 3.25, "two": 2.9}),
        "beta": model({"one": 2.75, "two": 3.1}),
        "gamma": model({"one": 2.5, "two": None}),
    }
    pairs = [pair("alpha", "beta", 0.5, 0.004), pair("alpha", "gamma", 0.75, 0.003)]
    pairs.append(pair("beta", "gamma", 0.25, 0.06))
    scores["comparisons"] |= {
        "one": {"over_all": pairs, "tasks": dict.fromkeys(TASKS, pairs[:1])},
        "two": {"over_all": [pair("alpha", "beta", -0.2, 0.2)], "tasks": {}},
    }
    scores["positions"] = {"one": positions(num_places=3), "two": positions(0.4, num_places=3)}
    scores["judges_compared"] = [
        {
            "judges": ["one", "two"],
            "pairs": 80,
            "alpha": interval(0.456),
            "weighted_kappa": interval(0.567),
            "mean_difference": interval(-0.234),
        }
    ]
    scores["answer_loss"] = {
        "unit": "nats per answer token, mean of rows",
        "models": {
            "trained": {"mean": 2.0, "rows": 5, "rows_too_long": 1},
            "untrained": {"mean": 7.0, "rows": 5, "rows_too_long": 1},
        },
        "difference": {"mean": -5.0, "low": -5.5, "high": -4.5, "n": 5},
    }
    texts = {"texts": 30, "skipped": 1, "tokens": 45_678, "words": 34_567}
    scores["realism"] = {
        "model": "small-causal",
        "context_tokens": 1024,
        "stride_tokens": 512,
        "texts": [
            {
                "name": name,
                "kind": kind,
                **texts,
                "perplexity_token": interval(value),
                "perplexity_word": interval(2 * value),
            }
            for name, kind, value in (("reports", "case_reports", 21.125), ("made", "synthetic", 9.375))
        ],
    }
    return deepcopy(scores)


def write_evaluation(root: Folder, scores: Scores, answer: str = "An answer.", note: str = "A note.") -> None:
    """scores.json and the tables: balanced orders, every grade given to every model by every judge."""
    evaluation = root.child("evaluation")
    evaluation.make()
    evaluation.write_bytes("scores.json", json.dumps(scores).encode())
    items = [
        Item(f"i{k}", f"n{k}", ItemKind.TEST, TASKS[k % 2], f"{note} {k}", f"Why {k}?", "", note)
        for k in range(40)
    ]
    answers = [Answer(item.item_id, name, answer, "stop", "") for item in items for name in scores["models"]]
    write_records(evaluation, ITEMS_NAME, items, Item)
    write_records(evaluation, ANSWERS_NAME, answers, Answer)
    write_records(evaluation, GRADES_NAME, list(_grades(scores, items)), Grade)


def _grades(scores: Scores, items: Sequence[Item]) -> Iterator[Grade]:
    names = list(scores["models"])
    for judge_name in scores["judges"]:
        for number, item in enumerate(items):
            for order in range(2):
                shift = number + order
                for place in range(len(names)):
                    name = names[(place + shift) % len(names)]
                    grade = 1 + (number + place) % 4
                    yield Grade(item.item_id, name, judge_name, order, place, grade, Verdict.JUDGED)
