"""Raters' grades and judges' grades → the figures of a study, pure."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import Any

import numpy as np

from asclepius_ray.evaluation.agreement import Agreement, Floats, alpha_of, mean_of, weighted_kappa_of
from asclepius_ray.evaluation.judging import GRADES
from asclepius_ray.evaluation.records import Grade
from asclepius_ray.evaluation.sheets.key import Key
from asclepius_ray.evaluation.sheets.reading import AnswerId

Scores = Mapping[AnswerId, float]


@dataclass(frozen=True)
class Study:
    """What is compared: each rater's grades, each judge's scores, the note of each item."""

    key: Key
    grades: Mapping[str, Mapping[AnswerId, int]]
    judges: Mapping[str, Scores]
    note_of: Mapping[str, str]


def judge_scores(grades: Sequence[Grade]) -> dict[str, dict[AnswerId, float]]:
    """Each judge's score of each answer: the mean over the orders in which it gave a grade."""
    found: dict[str, dict[AnswerId, list[int]]] = defaultdict(lambda: defaultdict(list))
    for grade in grades:
        if grade.grade is not None:
            found[grade.judge][grade.item_id, grade.model].append(grade.grade)
    return {
        judge: {answer: fmean(values) for answer, values in by_answer.items()}
        for judge, by_answer in sorted(found.items())
    }


def describe_study(study: Study) -> dict[str, Any]:
    """All figures, as agreement.json holds them; what cannot be computed is null, and said."""
    raters = list(study.key.assignment)
    answers = sorted({answer for rater in raters for answer in study.key.answers_of(rater).values()})
    notes = [study.note_of[item_id] for item_id, _ in answers]
    columns = {rater: _column(study.grades.get(rater, {}), answers) for rater in raters}
    figures = {
        "sheet": study.key.sheet,
        "seed": study.key.seed,
        "items": len({item_id for item_id, _ in answers}),
        "notes": len(set(notes)),
        "answers": len(answers),
        "raters": {rater: _count_places(study, rater) for rater in raters},
        "models": _score_models(study, answers),
        "among_raters": _among(columns, notes, study.key.seed),
        "with_judges": {
            judge: _with_judge(columns, _column(scores, answers), notes, study.key.seed)
            for judge, scores in study.judges.items()
        },
    }
    return figures | {"not_computed": _missing_figures(figures)}


def _column(scores: Mapping[AnswerId, float], answers: Sequence[AnswerId]) -> Floats:
    return np.array([scores.get(answer, np.nan) for answer in answers], dtype=float)


def _count_places(study: Study, rater: str) -> dict[str, int]:
    places, graded = len(study.key.answers_of(rater)), len(study.grades.get(rater, {}))
    return {"answers": places, "graded": graded, "missing": places - graded}


def _score_models(study: Study, answers: Sequence[AnswerId]) -> dict[str, Any]:
    """Of each model the mean over its answers; one that several have graded counts with their mean."""
    scores = {}
    for model in sorted({model for _, model in answers}):
        own = [answer for answer in answers if answer[1] == model]
        given = {
            answer: [grades[answer] for grades in study.grades.values() if answer in grades] for answer in own
        }
        means = [fmean(values) if values else np.nan for values in given.values()]
        shares = Counter(value for values in given.values() for value in values)
        scores[model] = _figure(
            mean_of(means, [study.note_of[item_id] for item_id, _ in own], study.key.seed)
        ) | {
            "grades": shares.total(),
            "grade_shares": {str(grade): shares[grade] / shares.total() for grade in GRADES}
            if shares
            else {},
        }
    return scores


def _among(columns: Mapping[str, Floats], notes: Sequence[str], seed: int) -> dict[str, Any]:
    return {
        "alpha": _figure(alpha_of(np.stack(list(columns.values())), notes, seed)),
        "pairs": [
            {
                "raters": [first, second],
                "weighted_kappa": _figure(weighted_kappa_of(columns[first], columns[second], notes, seed)),
            }
            for first, second in combinations(columns, 2)
        ],
    }


def _with_judge(
    columns: Mapping[str, Floats], judged: Floats, notes: Sequence[str], seed: int
) -> dict[str, Any]:
    def compare(column: Floats) -> dict[str, Any]:
        return {
            "alpha": _figure(alpha_of(np.stack([column, judged]), notes, seed)),
            "weighted_kappa": _figure(weighted_kappa_of(column, judged, notes, seed)),
        }

    return {
        "mean_of_raters": compare(_mean_column(columns)),
        "raters": {rater: compare(column) for rater, column in columns.items()},
    }


def _mean_column(columns: Mapping[str, Floats]) -> Floats:
    stacked_RU = np.stack(list(columns.values()))
    counts_U = np.sum(~np.isnan(stacked_RU), axis=0)
    means_U: Floats = np.where(counts_U > 0, np.nansum(stacked_RU, axis=0) / np.maximum(counts_U, 1), np.nan)
    return means_U


def _figure(agreement: Agreement) -> dict[str, Any]:
    return agreement.to_json() | {
        "resamples_left_out": agreement.left_out,
        "why_not": agreement.why_not,
    }


def _missing_figures(figures: Mapping[str, Any]) -> list[str]:
    """A sentence for each figure or interval that could not be computed."""
    named = {f"the mean grade of {model}": figure for model, figure in figures["models"].items()}
    named["alpha among the raters"] = figures["among_raters"]["alpha"]
    for pair in figures["among_raters"]["pairs"]:
        named[f"weighted kappa of {' and '.join(pair['raters'])}"] = pair["weighted_kappa"]
    for judge, compared in figures["with_judges"].items():
        whose = {"the raters' mean": compared["mean_of_raters"], **compared["raters"]}
        for name, pair in whose.items():
            named[f"alpha of {name} with {judge}"] = pair["alpha"]
            named[f"weighted kappa of {name} with {judge}"] = pair["weighted_kappa"]
    return [
        f"{name}: {'not computed' if figure['value'] is None else 'no interval'}, as {figure['why_not']}"
        for name, figure in named.items()
        if figure["why_not"]
    ]
