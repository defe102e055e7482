"""Graded answers → figures, without side effects. What has no grade is counted and never averaged in."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from asclepius_ray.evaluation.judging import GRADES


class Verdict(StrEnum):
    """How one item of the test set ended."""

    JUDGED = "judged"
    ANSWER_FAILED = "answer_failed"
    """At least one model gave no answer: the judge is asked about complete sets only, so that all
    models are compared on the same items."""
    JUDGE_UNREADABLE = "judge_unreadable"
    """The judge's reply held no grades, twice."""
    JUDGE_FAILED = "judge_failed"
    """The judge gave no reply."""


@dataclass(frozen=True)
class GradedAnswer:
    """One model's answer to one item.

    failure: the reason code of an answer that did not come, else "". grade: None where there is none.
    place: where the judge saw the answer, from 0; None where it did not.
    """

    item_id: str
    task: str
    model: str
    answer: str
    finish_reason: str
    failure: str
    verdict: Verdict
    grade: int | None = None
    place: int | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True)
class Score:
    """Grades of one model over a set of items; judged + unjudged + failed = items.

    failed: the model itself gave no answer. unjudged: it did, and has no grade all the same.
    """

    items: int
    judged: int
    unjudged: int
    failed: int
    mean: float | None
    shares: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "mean": self.mean,
            "grade_shares": self.shares,
            "items": self.items,
            "judged": self.judged,
            "unjudged": self.unjudged,
            "failed": self.failed,
        }


def score_answers(answers: Sequence[GradedAnswer]) -> Score:
    """The figures of one model's answers; the mean is None where nothing was judged."""
    grades = [answer.grade for answer in answers if answer.grade is not None]
    failed = sum(1 for answer in answers if answer.failure)
    shares = Counter(grades)
    return Score(
        items=len(answers),
        judged=len(grades),
        unjudged=len(answers) - len(grades) - failed,
        failed=failed,
        mean=sum(grades) / len(grades) if grades else None,
        shares={str(grade): shares[grade] / len(grades) for grade in GRADES} if grades else {},
    )


def score_models(answers: Sequence[GradedAnswer]) -> dict[str, dict[str, Any]]:
    """Per model: over all, per task, the reasons of failed answers, and how many hit the token limit."""
    models = sorted({answer.model for answer in answers})
    return {model: _score_model([answer for answer in answers if answer.model == model]) for model in models}


def count_verdicts(answers: Sequence[GradedAnswer]) -> dict[str, int]:
    """Items by the way they ended; every verdict is named, also one that did not occur."""
    verdicts = Counter(dict.fromkeys(Verdict, 0))
    verdicts.update({answer.item_id: answer.verdict for answer in answers}.values())
    return {verdict.value: verdicts[verdict] for verdict in Verdict}


def _score_model(answers: Sequence[GradedAnswer]) -> dict[str, Any]:
    tasks = sorted({answer.task for answer in answers})
    return {
        "over_all": score_answers(answers).to_json(),
        "tasks": {
            task: score_answers([answer for answer in answers if answer.task == task]).to_json()
            for task in tasks
        },
        "failures": dict(sorted(Counter(answer.failure for answer in answers if answer.failure).items())),
        "cut_at_token_limit": sum(1 for answer in answers if answer.finish_reason == "length"),
        "prompt_tokens": sum(answer.prompt_tokens for answer in answers),
        "completion_tokens": sum(answer.completion_tokens for answer in answers),
    }
