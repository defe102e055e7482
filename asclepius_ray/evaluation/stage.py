"""Reads root/dataset, root/model, root/base_model → writes root/evaluation (scores.json, answers.parquet).

The models and the judge are addresses that somebody else has opened: a stage starts no endpoint.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow
import pyarrow.parquet

from asclepius_ray.artifacts import Folder, Manifest, write_manifest
from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.chat.prices import cost_usd
from asclepius_ray.errors import EvaluationError
from asclepius_ray.evaluation.answer_loss import RowLoss, measure_answer_loss, summarize_loss
from asclepius_ray.evaluation.answering import GradingSettings, JudgeUsage, grade_items
from asclepius_ray.evaluation.config import MODEL_FOLDERS, EvaluationConfig
from asclepius_ray.evaluation.scores import GradedAnswer, count_verdicts, score_models
from asclepius_ray.evaluation.test_set import Item, fit_notes, read_items
from asclepius_ray.progress import Progress
from asclepius_ray.prompts.rendering import prompt_hash
from asclepius_ray.tokens.tokenizer import load_tokenizer

ANSWERS_SCHEMA = pyarrow.schema(
    [
        ("item_id", pyarrow.string()),
        ("task", pyarrow.string()),
        ("model", pyarrow.string()),
        ("answer", pyarrow.string()),
        ("finish_reason", pyarrow.string()),
        ("failure", pyarrow.string()),
        ("verdict", pyarrow.string()),
        ("grade", pyarrow.int8()),
        ("place", pyarrow.int8()),
        ("prompt_tokens", pyarrow.int64()),
        ("completion_tokens", pyarrow.int64()),
        ("answer_loss_nats", pyarrow.float64()),
    ]
)


@dataclass(frozen=True)
class EvaluationPlan:
    """Who is evaluated, by whom and how. The models' names are those of `config.models`."""

    config: EvaluationConfig
    models: Mapping[str, Endpoint]
    judge: Endpoint
    seed: int
    sequence_length: int
    """Positions of the training rows: the answer loss is computed on the very same ids."""


def measure_losses(
    root: Folder, config: EvaluationConfig, sequence_length: int, progress: Progress
) -> dict[str, list[RowLoss]]:
    """The answer loss of each model on each held-out row, for `evaluate`.

    To be called before the models are served: replicas hold the CPUs, or the GPU, that this waits for.
    """
    items = read_items(root.child("dataset"), config.limit)
    progress.begin(f"evaluate: the loss of {len(items)} reference answers")
    return measure_answer_loss(root, sorted(config.models), items, sequence_length, config.use_gpu)


def evaluate(
    root: Folder,
    plan: EvaluationPlan,
    losses: Mapping[str, Sequence[RowLoss]],
    made_from: dict[str, Any],
    progress: Progress,
) -> Manifest:
    """Scores the models on the held-out rows; an EvaluationError if no item could be judged.

    `losses`: what `measure_losses` found on the same rows.
    """
    started = time.monotonic()
    names = sorted(plan.models)
    items = fit_notes(
        read_items(root.child("dataset"), plan.config.limit),
        load_tokenizer(root.child(MODEL_FOLDERS[names[0]])),
        plan.sequence_length - plan.config.max_new_tokens,
    )
    progress.begin("evaluate: answers and grades", total=len(items))
    settings = GradingSettings(plan.seed, plan.config.max_new_tokens, plan.config.max_in_flight)
    answers, usage = grade_items(items, plan.models, plan.judge, settings, progress.update)
    _require_judged(answers, usage)
    folder = root.child("evaluation")
    folder.clear()
    folder.make()
    _write_answers(folder, answers, losses, items)
    scores = {
        **_summarize(plan, answers, usage),
        "shortened_notes": sum(1 for item in items if item.asked_note != item.note),
        "answer_loss": summarize_loss(losses, plan.seed),
    }
    folder.write_bytes("scores.json", (json.dumps(scores, indent=2) + "\n").encode())
    counts = {"input": len(items), **scores["counts"]}
    details = {"judge": scores["judge"], "seconds": round(time.monotonic() - started, 1)}
    return write_manifest(folder, "evaluation", counts, made_from, details)


def _summarize(plan: EvaluationPlan, answers: Sequence[GradedAnswer], usage: JudgeUsage) -> dict[str, Any]:
    return {
        "judge": {
            "model": plan.judge.model,
            "is_offline": plan.judge.is_offline,
            "kind": "rules, not a language model" if plan.judge.is_offline else "language model",
            "usage": asdict(usage),
            "cost_usd": cost_usd(plan.judge.price, usage.prompt_tokens, usage.completion_tokens),
        },
        "protocol": "all models' answers to an item in one prompt, order shuffled by seed, grades 1-4",
        "prompts": {name: prompt_hash(name) for name in ("instruction", "judge")},
        "seed": plan.seed,
        "test_set": plan.config.test_set,
        "max_new_tokens": plan.config.max_new_tokens,
        "counts": count_verdicts(answers),
        "models": score_models(answers),
    }


def _require_judged(answers: Sequence[GradedAnswer], usage: JudgeUsage) -> None:
    counts = count_verdicts(answers)
    if counts["judged"]:
        return
    reasons = {f"{answer.model}: {answer.failure}" for answer in answers if answer.failure}
    reasons |= {f"judge: {reason}" for reason in usage.failures}
    ended = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
    because = f" (reasons: {', '.join(sorted(reasons))})" if reasons else ""
    raise EvaluationError(
        f"none of the items could be judged: {ended}{because}; check that the models answer and that "
        "the judge replies with grades alone"
    )


def _write_answers(
    folder: Folder,
    answers: Sequence[GradedAnswer],
    losses: Mapping[str, Sequence[RowLoss]],
    items: Sequence[Item],
) -> None:
    places = {item.item_id: place for place, item in enumerate(items)}
    rows = [
        {**asdict(answer), "answer_loss_nats": losses[answer.model][places[answer.item_id]].mean_nats}
        for answer in answers
    ]
    with folder.open_output("answers.parquet") as stream:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema=ANSWERS_SCHEMA), stream)
