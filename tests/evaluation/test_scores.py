"""Graded answers to figures: what has no grade is counted and is in no mean."""

from dataclasses import replace

import pytest

from asclepius_ray.evaluation.scores import GradedAnswer, Verdict, count_verdicts, score_answers, score_models

JUDGED = GradedAnswer("1-1", "Summarization", "trained", "text", "stop", "", Verdict.JUDGED, grade=4, place=0)
UNREADABLE = replace(JUDGED, item_id="2-1", verdict=Verdict.JUDGE_UNREADABLE, grade=None)
FAILED = replace(JUDGED, item_id="3-1", verdict=Verdict.ANSWER_FAILED, failure="timeout", grade=None)


def test_an_answer_without_a_grade_does_not_pull_the_mean() -> None:
    score = score_answers([JUDGED, UNREADABLE, FAILED])
    assert score.mean == 4.0
    assert (score.items, score.judged, score.unjudged, score.failed) == (3, 1, 1, 1)


def test_nothing_judged_has_no_mean_rather_than_0() -> None:
    score = score_answers([UNREADABLE, FAILED])
    assert score.mean is None
    assert score.shares == {}


def test_the_shares_of_the_grades_add_up_to_one() -> None:
    grades = [1, 1, 2, 4, 4, 4]
    score = score_answers([replace(JUDGED, grade=grade) for grade in grades])
    assert sum(score.shares.values()) == pytest.approx(1)
    assert score.shares == {"1": 2 / 6, "2": 1 / 6, "3": 0.0, "4": 3 / 6}


def test_scores_are_kept_apart_by_model_and_task() -> None:
    answers = [
        JUDGED,
        replace(JUDGED, model="untrained", grade=1),
        replace(JUDGED, item_id="4-1", task="Paraphrasing", grade=2),
        replace(FAILED, model="untrained", task="Paraphrasing"),
    ]
    scores = score_models(answers)
    assert scores["trained"]["over_all"]["mean"] == 3.0
    assert scores["trained"]["tasks"]["Paraphrasing"]["mean"] == 2.0
    assert scores["untrained"]["over_all"]["mean"] == 1.0
    assert scores["untrained"]["tasks"]["Paraphrasing"]["mean"] is None
    assert scores["untrained"]["failures"] == {"timeout": 1}


def test_an_item_is_counted_once_however_many_models_answered_it() -> None:
    answers = [JUDGED, replace(JUDGED, model="untrained"), UNREADABLE, FAILED]
    counts = count_verdicts(answers)
    assert counts == {"judged": 1, "answer_failed": 1, "judge_unreadable": 1, "judge_failed": 0}
