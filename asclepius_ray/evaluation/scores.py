"""Records → scores.json, without side effects. What has no grade is counted and never averaged in."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from asclepius_ray.chat.prices import cost_usd
from asclepius_ray.evaluation.agreement import alpha_of, weighted_kappa_of
from asclepius_ray.evaluation.answer_loss import summarize_loss
from asclepius_ray.evaluation.asking import Seat
from asclepius_ray.evaluation.asking_all import Outcome
from asclepius_ray.evaluation.config import MODEL_FOLDERS, EvaluationConfig
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
    read_answers,
    summarize_reference,
    summarize_texts,
    summarize_unanswerable,
)
from asclepius_ray.prompts.rendering import prompt_hash

if TYPE_CHECKING:
    from asclepius_ray.evaluation.stage import Measured


@dataclass(frozen=True)
class Scored:
    """What there is to be scored."""

    config: EvaluationConfig
    items: Sequence[Item]
    outcome: Outcome
    seed: int

    @cached_property
    def test_items(self) -> list[Item]:
        return [item for item in self.items if item.kind == ItemKind.TEST.value]

    @cached_property
    def test_grades(self) -> list[Grade]:
        ids = {item.item_id for item in self.test_items}
        return [grade for grade in self.outcome.grades if grade.item_id in ids]

    def answers_of(self, model: str) -> list[Answer]:
        return [answer for answer in self.outcome.answers if answer.model == model]

    def tokens_of(self, model: str) -> tuple[int, int]:
        answers = self.answers_of(model)
        return sum(one.prompt_tokens for one in answers), sum(one.completion_tokens for one in answers)


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
        "answer_loss": summarize_loss(measured.losses, scored.seed) if measured.losses else None,
        "realism": measured.realism,
    }
