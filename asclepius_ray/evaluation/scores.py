"""Records → scores.json, without side effects. What has no grade is counted and never averaged in."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from asclepius_ray.chat.prices import cost_usd
from asclepius_ray.config import shown_name
from asclepius_ray.evaluation.agreement import alpha_of, weighted_kappa_of
from asclepius_ray.evaluation.answer_loss import RowLoss, summarize_loss
from asclepius_ray.evaluation.answering import temperature_of
from asclepius_ray.evaluation.asking import Seat
from asclepius_ray.evaluation.config import MODEL_FOLDERS, EvaluationConfig
from asclepius_ray.evaluation.exam import Outcome
from asclepius_ray.evaluation.grading import JudgeUsage
from asclepius_ray.evaluation.records import Answer, Grade, Item, ItemKind
from asclepius_ray.evaluation.statistics.item_scores import item_scores
from asclepius_ray.evaluation.statistics.summary import (
    comparison_table,
    interval_of,
    position_table,
    score_table,
    win_table,
)
from asclepius_ray.evaluation.test_set import TestSet
from asclepius_ray.evaluation.text_figures import (
    TextFigures,
    summarize_reference,
    summarize_texts,
    summarize_unanswerable,
)
from asclepius_ray.prompts.rendering import prompt_hash

if TYPE_CHECKING:
    from asclepius_ray.evaluation.stage import Measured

SHARE = (0.0, 1.0)


@dataclass(frozen=True)
class Scored:
    """What there is to be scored."""

    config: EvaluationConfig
    items: Sequence[Item]
    outcome: Outcome
    figures: Sequence[TextFigures]
    """Of every answer that came, in any order."""
    seed: int
    has_real_notes: bool

    @cached_property
    def test_items(self) -> list[Item]:
        return [item for item in self.items if item.kind == ItemKind.TEST.value]

    @cached_property
    def test_grades(self) -> list[Grade]:
        ids = {item.item_id for item in self.test_items}
        return [grade for grade in self.outcome.grades if grade.item_id in ids]

    def answers_of(self, model: str) -> list[Answer]:
        return [answer for answer in self.outcome.answers if answer.model == model]


def score(
    scored: Scored,
    models: Mapping[str, Seat],
    judges: Mapping[str, Seat],
    test_set: TestSet,
    measured: "Measured",
) -> dict[str, Any]:
    """All figures of an evaluation; the shape is that of scores.json."""
    config = scored.config
    tables = {judge: _judge_tables(scored, judge) for judge in judges}
    return {
        "seed": scored.seed,
        "test_set": _test_set(scored, test_set),
        "protocol": {
            "kind": config.protocol,
            "orders": config.num_orders,
            "reasons": config.reasons,
            "max_new_tokens": config.max_new_tokens,
        },
        "prompts": {name: prompt_hash(name) for name in ("instruction", "judge")},
        "judges": {name: _judge(seat, scored.outcome.usage[name]) for name, seat in judges.items()},
        "models": {
            model: _model(scored, model, models.get(model)) | _grades(tables, model)
            for model in config.models
        },
        "comparisons": {judge: table["comparisons"] for judge, table in tables.items()},
        "wins": {judge: table["wins"] for judge, table in tables.items()},
        "positions": {judge: table["positions"] for judge, table in tables.items()},
        "judges_compared": _compare_judges(scored, list(judges)),
        "answer_loss": _answer_loss(scored, measured.losses) if measured.losses else None,
        "realism": measured.realism,
    }


def _judge_tables(scored: Scored, judge: str) -> dict[str, Any]:
    config, seed, items, grades = scored.config, scored.seed, scored.test_items, scored.test_grades
    answers = scored.outcome.answers
    return {
        "scores": score_table(grades, answers, items, judge, config.models, seed),
        "comparisons": comparison_table(grades, items, judge, config.models, seed),
        "wins": win_table(grades, items, judge, config.models, config.compared_model),
        "positions": position_table(grades, items, judge, seed),
    }


def _grades(tables: Mapping[str, Any], model: str) -> dict[str, Any]:
    return {"grades": {judge: table["scores"][model] for judge, table in tables.items()}}


def _test_set(scored: Scored, test_set: TestSet) -> dict[str, Any]:
    items = scored.test_items
    return {
        "name": test_set.name,
        "items": len(items),
        "left_out": dict(test_set.left_out),
        "notes": len({item.note_id for item in items}),
        "unanswerable": len(scored.items) - len(items),
        "tasks": dict(sorted(Counter(item.task for item in items).items())),
        "shortened_notes": sum(item.asked_note != item.note for item in scored.items),
        "real_notes": scored.has_real_notes,
    }


def _judge(seat: Seat, usage: JudgeUsage) -> dict[str, Any]:
    endpoint = seat.endpoint
    return {
        "model": endpoint.model,
        "temperature": endpoint.sampling_of("judge").temperature,
        "is_offline": endpoint.is_offline,
        "kind": "rules, not a language model" if endpoint.is_offline else "language model",
        "requests": usage.requests,
        "unreadable_replies": usage.unreadable_replies,
        "failures": dict(sorted(usage.failures.items())),
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cost_usd": cost_usd(endpoint.price, usage.prompt_tokens, usage.completion_tokens),
    }


def _model(scored: Scored, model: str, seat: Seat | None) -> dict[str, Any]:
    """What is known of a model beside its grades; `seat` None: its answers stand in a table."""
    answers = scored.answers_of(model)
    prompt_tokens = sum(answer.prompt_tokens for answer in answers)
    completion_tokens = sum(answer.completion_tokens for answer in answers)
    price = None if seat is None else seat.endpoint.price
    return {
        "source": scored.config.source_of(model),
        "model": _name_of(scored.config, model, seat),
        "temperature": None if seat is None else temperature_of(seat.endpoint),
        "is_offline": seat is not None and seat.endpoint.is_offline,
        "answers": len(answers),
        "failed": dict(sorted(Counter(answer.failure for answer in answers if answer.failure).items())),
        "cut_at_token_limit": sum(answer.finish_reason == "length" for answer in answers),
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "cost_usd": cost_usd(price, prompt_tokens, completion_tokens),
        **_texts(scored, model),
    }


def _answer_loss(scored: Scored, losses: Mapping[str, Sequence[RowLoss]]) -> dict[str, Any]:
    notes = [item.note_id for item in scored.test_items if item.reference]
    return summarize_loss(losses, notes, scored.seed)


def _texts(scored: Scored, model: str) -> dict[str, Any]:
    own = [figures for figures in scored.figures if figures.model == model]

    def interval(values: Sequence[float], notes: Sequence[str]) -> dict[str, Any]:
        return interval_of(values, notes, scored.seed, SHARE)

    return {
        "texts": summarize_texts(own),
        "reference": summarize_reference(own, interval),
        "unanswerable": summarize_unanswerable(own, scored.outcome.grades),
    }


def _name_of(config: EvaluationConfig, model: str, seat: Seat | None) -> str:
    """What others may call it: the served folder's last part, the name at the endpoint, "" in a table."""
    if model in MODEL_FOLDERS:
        return MODEL_FOLDERS[model]
    endpoint = config.endpoints.get(model)
    if endpoint is not None and endpoint.model_path:
        return shown_name(endpoint.model_path)
    return "" if seat is None else seat.endpoint.model


def _compare_judges(scored: Scored, judges: Sequence[str]) -> list[dict[str, Any]]:
    """Every two judges: how far they agree on the same answers, and how much stricter one is."""
    models = scored.config.models
    tables = {judge: item_scores(scored.test_grades, scored.test_items, judge, models) for judge in judges}
    scores = {judge: table.scores.ravel() for judge, table in tables.items()}
    notes = [note_id for note_id in tables[judges[0]].note_ids for _ in models]
    return [
        _compare_two(first, second, scores, notes, scored.seed) for first, second in combinations(judges, 2)
    ]


def _compare_two(
    first: str, second: str, scores: Mapping[str, Any], notes: Sequence[str], seed: int
) -> dict[str, Any]:
    one, other = scores[first], scores[second]
    difference = one - other
    return {
        "judges": [first, second],
        "pairs": int((~np.isnan(difference)).sum()),
        "alpha": alpha_of(np.stack([one, other]), notes, seed).to_json(),
        "weighted_kappa": weighted_kappa_of(one, other, notes, seed).to_json(),
        "mean_difference": interval_of(difference, notes, seed),
    }
