"""Reads a test set and root/model, root/base_model → writes root/evaluation: its records and scores.json.

The models and the judges are addresses that somebody else has opened: a stage starts no endpoint.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from asclepius_ray.artifacts import Folder, Manifest, write_manifest
from asclepius_ray.errors import EvaluationError
from asclepius_ray.evaluation.answer_loss import RowLoss, measure_answer_loss
from asclepius_ray.evaluation.asking import Seat
from asclepius_ray.evaluation.config import MODEL_FOLDERS, EvaluationConfig
from asclepius_ray.evaluation.exam import Exam, Outcome, hold
from asclepius_ray.evaluation.records import (
    ANSWERS_NAME,
    GRADES_NAME,
    ITEMS_NAME,
    Answer,
    Grade,
    Item,
    Verdict,
    write_records,
)
from asclepius_ray.evaluation.scores import Scored, score
from asclepius_ray.evaluation.test_set import TestSet, fit_notes
from asclepius_ray.evaluation.text_figures import TextFigures, group_by_note, measure_group
from asclepius_ray.evaluation.unanswerable import pair_unanswerable
from asclepius_ray.progress import Progress
from asclepius_ray.tokens.tokenizer import load_tokenizer

FEW_ANSWERS = 400
"""So many are read in the time that a task takes to load the dictionaries."""
TEXT_TASKS = 8


@dataclass(frozen=True)
class EvaluationPlan:
    """Who is evaluated, by whom and how.

    models: those that are asked, by their names in `config.models`. sequence_length: positions of the
    training rows, as the answer loss is computed on the very same ids. has_real_notes: what the report shows
    depends on it.
    """

    run_name: str
    config: EvaluationConfig
    models: Mapping[str, Seat]
    judges: Mapping[str, Seat]
    seed: int
    sequence_length: int
    has_real_notes: bool = True


@dataclass(frozen=True)
class Measured:
    """What needs no endpoint: the answer loss of the run's own models, and perplexities, if asked for."""

    losses: Mapping[str, Sequence[RowLoss]]
    realism: Mapping[str, Any] | None = None


def measure_losses(
    root: Folder, config: EvaluationConfig, test_set: TestSet, sequence_length: int, progress: Progress
) -> dict[str, list[RowLoss]]:
    """The loss of the reference answers, in the order of the items that have one; {} without own models.

    To be called before the models are served: replicas hold the CPUs, or the GPU, that this waits for.
    """
    items = with_reference(test_set.items)
    if not config.own_models or not items:
        return {}
    progress.begin(f"evaluate: the loss of {len(items)} reference answers")
    return measure_answer_loss(root, sorted(config.own_models), items, sequence_length, config.use_gpu)


def with_reference(items: Sequence[Item]) -> list[Item]:
    return [item for item in items if item.reference]


def evaluate(
    root: Folder,
    plan: EvaluationPlan,
    test_set: TestSet,
    measured: Measured,
    made_from: dict[str, Any],
    progress: Progress,
) -> Manifest:
    """Asks, judges and scores; what was bought before is not asked again.

    Raises an EvaluationError if nothing could be judged, and an EndpointError, a BudgetError or an OSError
    where it cannot go on: a rerun goes on from there.
    """
    started = time.monotonic()
    items = _items(root, plan, test_set)
    progress.begin("evaluate: answers and grades", total=len(items))
    exam = Exam(items, plan.models, test_set.given, plan.judges, plan.config, plan.seed)
    outcome = hold(exam, root, progress)
    _require_judged(outcome)
    progress.begin("evaluate: figures of the texts")
    figures = measure_texts(group_by_note(items, outcome.answers))
    scored = Scored(plan.config, items, outcome, figures, plan.seed, plan.has_real_notes)
    progress.begin("evaluate: statistics")
    scores = {
        "run": plan.run_name,
        "written_unix": time.time(),
        **score(
            scored,
            plan.models,
            plan.judges,
            test_set,
            measured,
        ),
        "seconds": round(time.monotonic() - started, 1),
    }
    folder = root.child("evaluation")
    folder.clear()
    folder.make()
    write_records(folder, ITEMS_NAME, items, Item)
    write_records(folder, ANSWERS_NAME, outcome.answers, Answer)
    write_records(folder, GRADES_NAME, outcome.grades, Grade)
    folder.write_bytes("scores.json", (json.dumps(scores, indent=2, allow_nan=False) + "\n").encode())
    details = {"judges": scores["judges"], "seconds": scores["seconds"]}
    return write_manifest(folder, "evaluation", _counts(test_set, outcome), made_from, details)


def measure_texts(groups: Sequence[Sequence[tuple[Item, Answer]]]) -> list[TextFigures]:
    """The figures of all answers, by Ray tasks side by side where there are many."""
    if sum(map(len, groups)) < FEW_ANSWERS:
        return _measure_groups(groups)
    measure = ray.remote(num_cpus=1)(_measure_groups)
    pending = [measure.remote(groups[start::TEXT_TASKS]) for start in range(TEXT_TASKS)]
    return [figures for found in ray.get(pending) for figures in found]


def _measure_groups(groups: Sequence[Sequence[tuple[Item, Answer]]]) -> list[TextFigures]:
    return [figures for group in groups for figures in measure_group(group)]


def _items(root: Folder, plan: EvaluationPlan, test_set: TestSet) -> list[Item]:
    """The test set and what was made of it, with notes that fit the run's own models."""
    items = [*test_set.items, *pair_unanswerable(test_set.items, plan.config.unanswerable, plan.seed)]
    if not plan.config.own_models:
        return items
    tokenizer = load_tokenizer(root.child(MODEL_FOLDERS[plan.config.own_models[0]]))
    return fit_notes(items, tokenizer, plan.sequence_length - plan.config.max_new_tokens)


def _counts(test_set: TestSet, outcome: Outcome) -> dict[str, Any]:
    """items + Σ left_out = rows of the test set; each grade in exactly one verdict."""
    verdicts = dict.fromkeys((verdict.value for verdict in Verdict), 0)
    for grade in outcome.grades:
        verdicts[grade.verdict] += 1
    return {
        "input": len(test_set.items) + sum(test_set.left_out.values()),
        "left_out": dict(test_set.left_out),
        "answers": len(outcome.answers),
        "failed_answers": sum(bool(answer.failure) for answer in outcome.answers),
        **verdicts,
    }


def _require_judged(outcome: Outcome) -> None:
    if any(grade.verdict == Verdict.JUDGED for grade in outcome.grades):
        return
    reasons = {f"{answer.model}: {answer.failure}" for answer in outcome.answers if answer.failure}
    reasons |= {f"{judge}: {reason}" for judge, usage in outcome.usage.items() for reason in usage.failures}
    reasons |= {f"{judge}: unreadable" for judge, usage in outcome.usage.items() if usage.unreadable_replies}
    because = f" (reasons: {', '.join(sorted(reasons))})" if reasons else ""
    raise EvaluationError(
        f"none of the answers could be judged{because}; check that the models answer and that the judge "
        "replies with grades alone"
    )
