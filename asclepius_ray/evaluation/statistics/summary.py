"""Records → the tables of scores.json that hold statistics, in its shapes.

Pass the items that a table is about: grades of others are left out, so tests and unanswerable ones never mix.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from asclepius_ray.evaluation.judging import GRADES
from asclepius_ray.evaluation.records import Answer, Grade, Item, Verdict
from asclepius_ray.evaluation.statistics.comparisons import compare_pairs, count_wins
from asclepius_ray.evaluation.statistics.intervals import Bounds, interval_of_mean
from asclepius_ray.evaluation.statistics.item_scores import ItemScores, item_scores
from asclepius_ray.evaluation.statistics.notes import Floats
from asclepius_ray.evaluation.statistics.positions import measure_positions

_SCALE: Bounds = (float(GRADES[0]), float(GRADES[-1]))


def score_table(
    grades: Sequence[Grade],
    answers: Sequence[Answer],
    items: Sequence[Item],
    judge: str,
    models: Sequence[str],
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Model → its score over all items and on each task, as one judge sees it.

    judged + unjudged + failed = items. failed: the model gave no answer. unjudged: it has no grade in any
    order; not_asked of these since the answer of another model to the same item failed. None is in any mean.
    grade_shares: of all grades in all orders; empty where there are none.
    """
    failed = {(answer.item_id, answer.model) for answer in answers if answer.failure}
    kept = [grade for grade in grades if (grade.item_id, grade.model) not in failed]
    scores = item_scores(kept, items, judge, models)
    lost = _Lost(frozenset(failed), _not_asked(kept, judge))
    over_all = _scores(scores, lost, seed)
    by_task = {task: _scores(part, lost, seed) for task, part in scores.by_task().items()}
    return {
        model: {"over_all": over_all[model], "tasks": {task: part[model] for task, part in by_task.items()}}
        for model in models
    }


def comparison_table(
    grades: Sequence[Grade], items: Sequence[Item], judge: str, models: Sequence[str], seed: int
) -> dict[str, Any]:
    """All pairs of models over all items and on each task; each list of pairs is adjusted by itself."""
    scores = item_scores(grades, items, judge, models)
    return {
        "over_all": [pair.to_json() for pair in compare_pairs(scores, seed)],
        "tasks": {
            task: [pair.to_json() for pair in compare_pairs(part, seed)]
            for task, part in scores.by_task().items()
        },
    }


def win_table(
    grades: Sequence[Grade], items: Sequence[Item], judge: str, models: Sequence[str], against: str
) -> dict[str, Any]:
    """Each other model's wins, ties and losses against the chosen one.

    EvaluationError: the chosen one is not among the models.
    """
    wins = count_wins(item_scores(grades, items, judge, models), against)
    return {"against": against, "models": {model: counts.to_json() for model, counts in wins.items()}}


def position_table(grades: Sequence[Grade], items: Sequence[Item], judge: str, seed: int) -> dict[str, Any]:
    """Mean grade in each place, first place minus last, and how often the orders agree."""
    return measure_positions(grades, items, judge, seed).to_json()


def interval_of(
    values: Sequence[float] | Floats, clusters: Sequence[str], seed: int, bounds: Bounds | None = None
) -> dict[str, Any]:
    """The mean of any figure of items with its interval; clusters: the note of each. NaN = no figure."""
    return interval_of_mean(values, clusters, seed, bounds).to_json()


Pairs = frozenset[tuple[str, str]]
"""Of item and model."""


@dataclass(frozen=True)
class _Lost:
    failed: Pairs
    not_asked: Pairs


def _not_asked(grades: Sequence[Grade], judge: str) -> Pairs:
    return frozenset(
        (grade.item_id, grade.model)
        for grade in grades
        if grade.judge == judge and grade.verdict == Verdict.ANSWER_FAILED
    )


def _scores(scores: ItemScores, lost: _Lost, seed: int) -> dict[str, dict[str, Any]]:
    return {model: _score(scores, column, lost, seed) for column, model in enumerate(scores.models)}


def _score(scores: ItemScores, column: int, lost: _Lost, seed: int) -> dict[str, Any]:
    values = scores.scores[:, column]
    interval = interval_of_mean(values, scores.note_ids, seed, bounds=_SCALE)
    pairs = [(item_id, scores.models[column]) for item_id in scores.item_ids]
    num_failed = sum(pair in lost.failed for pair in pairs)
    num_not_asked = sum(pair in lost.not_asked for pair in pairs)
    counts = scores.counts_IMG[:, column].sum(axis=0)
    num_grades = int(counts.sum())
    shares = {
        str(grade): int(count) / num_grades for grade, count in zip(GRADES, counts, strict=True) if num_grades
    }
    return {
        "mean": interval.value,
        "low": interval.low,
        "high": interval.high,
        "items": len(values),
        "judged": interval.n,
        "unjudged": len(values) - interval.n - num_failed,
        "not_asked": num_not_asked,
        "failed": num_failed,
        "grade_shares": shares,
    }
