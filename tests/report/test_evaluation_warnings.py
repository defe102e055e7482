"""What the evaluation's page says of its figures: it warns where it should, and claims what is shown."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from evaluation_scores import (
    Scores,
    full_scores,
    interval,
    judge,
    model,
    positions,
    score,
    sound_scores,
    write_evaluation,
)
from read_page import ReadPage
from shown_evaluation import show

from asclepius_ray.artifacts import Folder
from asclepius_ray.report.evaluation_page import write_evaluation_page

Change = Callable[[Scores], Any]


def warned(text: str) -> set[str]:
    return set(re.findall(r'<li data-kind="(\w+)">', text))


def _flat(scores: Scores) -> None:
    for values in scores["models"].values():
        values["grades"]["one"]["over_all"]["grade_shares"] = {"1": 0.0, "2": 0.0, "3": 0.03, "4": 0.97}


def _barely_not_flat(scores: Scores) -> None:
    for values in scores["models"].values():
        values["grades"]["one"]["over_all"]["grade_shares"] = {"1": 0.0, "2": 0.0, "3": 0.06, "4": 0.94}


def _one_flat_model(scores: Scores) -> None:
    scores["models"]["beta"]["grades"]["one"]["over_all"]["grade_shares"] = {"4": 1.0}


def _unjudged(number: int) -> Change:
    def change(scores: Scores) -> None:
        scores["models"]["alpha"]["grades"]["one"]["over_all"] = score(3.25, 400 - number, number)

    return change


def _set(path: str, value: Any) -> Change:
    def change(scores: Scores) -> None:
        *parents, last = path.split(".")
        for name in parents:
            scores = scores[name]
        scores[last] = value

    return change


def _both(*changes: Change) -> Change:
    def change(scores: Scores) -> None:
        for one in changes:
            one(scores)

    return change


WARNINGS: dict[str, tuple[Change, set[str]]] = {
    "nothing is wrong": (_set("seed", 8), set()),
    "one grade alone": (_flat, {"flat"}),
    "94 % of one grade": (_barely_not_flat, set()),
    "one model with one grade alone": (_one_flat_model, set()),
    "the first is preferred": (_set("positions.one", positions(0.4)), {"position_bias"}),
    "the last is preferred": (_set("positions.one", positions(-0.4)), {"position_bias"}),
    "a bias that may be none": (_set("positions.one", positions(0.09)), set()),
    "a bias without interval": (_set("positions.one.first_minus_last", interval(None)), set()),
    "1.25 % unjudged": (_unjudged(5), {"unjudged"}),
    "1 % unjudged": (_unjudged(4), set()),
    "1.25 % unreadable": (_set("judges.one.unreadable_replies", 1), {"unreadable"}),
    "1 % unreadable": (
        _both(_set("judges.one.unreadable_replies", 1), _set("judges.one.requests", 100)),
        set(),
    ),
    "failed answers": (_set("models.beta.failed", {"timeout": 1}), {"failed_answers"}),
    "29 notes": (_set("test_set.notes", 29), {"few_notes"}),
    "30 notes": (_set("test_set.notes", 30), set()),
    "a cut answer": (_set("models.beta.cut_at_token_limit", 1), {"cut_answers"}),
    "one order": (_set("protocol.orders", 1), {"one_order"}),
    "one answer at a time": (_both(_set("protocol.orders", 1), _set("protocol.kind", "single")), set()),
    "rules as judge": (_set("judges.one", judge(is_offline=True)), {"rules"}),
    "nothing judged": (
        _set("models", {"alpha": model({"one": None}), "beta": model({"one": None})}),
        {"nothing_judged", "unjudged"},
    ),
}


@pytest.mark.parametrize(("change", "kinds"), WARNINGS.values(), ids=WARNINGS)
def test_each_warning_stands_exactly_where_it_should(root: Folder, change: Change, kinds: set[str]) -> None:
    scores = sound_scores()
    change(scores)
    text, page = show(root, scores)
    assert warned(text) == kinds
    assert ("None: the figures give no cause for one." in page.text) == (not kinds)
    assert ("before the figures." in page.text) == bool(kinds)


def test_a_warning_says_by_how_much_and_of_whom(root: Folder) -> None:
    scores = sound_scores()
    for path, value in (
        ("models.beta.failed", {"timeout": 2, "too_long": 1}),
        ("models.beta.cut_at_token_limit", 10),
        ("judges.one.unreadable_replies", 40),
        ("test_set.notes", 12),
    ):
        _set(path, value)(scores)
    _unjudged(20)(scores)
    _, page = show(root, scores)
    for said in (
        "Questions were left without an answer: beta 3 (timeout 2, too long 1). They",
        "cut at the limit of 400 tokens and graded as they are: beta 10 of 40 (25.0 %).",
        "Of 80 replies of one, 40 held no grades that can be read (50.0 %).",
        "one left items without a grade: alpha 20 of 400 (5.0 %). They are in no mean",
        "Only 12 notes were asked about.",
        "5 warnings stand below",
    ):
        assert said in page.text, said


def test_a_bias_that_balanced_orders_cancel_is_told_from_one_that_they_do_not(root: Folder) -> None:
    scores = sound_scores()
    scores["positions"]["one"] = positions(0.4)
    write_evaluation(root, scores)
    evaluation = Path(root.child("evaluation").uri)
    balanced = ReadPage(Path(write_evaluation_page(root)[0]).read_text(encoding="utf-8"))
    assert "one prefers the answer that stands first: by 0.40 grades" in balanced.text
    assert "(first minus last 0.40, 95 % interval 0.30 to 0.50)" in balanced.text
    assert "it cancels in the means: at most 0.000 grades" in balanced.text
    grades = pyarrow.parquet.read_table(evaluation / "grades.parquet")
    of_alpha_first = [row for row in grades.to_pylist() if (row["model"] == "alpha") == (row["place"] == 0)]
    table = pyarrow.Table.from_pylist(of_alpha_first, schema=grades.schema)
    pyarrow.parquet.write_table(table, evaluation / "grades.parquet")
    text = Path(write_evaluation_page(root)[0]).read_text(encoding="utf-8")
    assert warned(text) == {"position_bias", "bias_left"}
    unbalanced = ReadPage(text)
    assert "0.400 grades of it are left between two models" in unbalanced.text
    assert "This may be the doing of the order in which the answers were shown." in unbalanced.text
    (evaluation / "grades.parquet").unlink()
    unknown = ReadPage(Path(write_evaluation_page(root)[0]).read_text(encoding="utf-8"))
    assert "is not known: the table of grades is gone" in unknown.text


HEADLINES: dict[str, tuple[Change, str]] = {
    "ahead": (
        _set("seed", 8),
        "By the judge one, alpha is ahead with a mean grade of 3.25 of 4: its difference to beta stays clear "
        "of zero after correction for the number of comparisons; against beta, 0.50 grades (95 % interval "
        "0.43 to 0.58, corrected p = 0.004).",
    ),
    "not shown": (
        lambda scores: scores["comparisons"]["one"]["over_all"][0].update(p_adjusted=0.05),
        "alpha has the highest mean grade, 3.25 of 4, but that it is ahead is not shown: after correction "
        "for the number of comparisons its difference to beta may be zero; against beta, 0.50 grades (95 % "
        "interval 0.43 to 0.58, corrected p = 0.050).",
    ),
    "turned": (
        lambda scores: scores["comparisons"]["one"]["over_all"][0].update(
            a="beta", b="alpha", difference=-0.5, low=-0.6, high=-0.1, p_adjusted=0.0001
        ),
        "alpha is ahead with a mean grade of 3.25 of 4: its difference to beta stays clear of zero after "
        "correction for the number of comparisons; against beta, 0.50 grades (95 % interval 0.10 to 0.60, "
        "corrected p < 0.001).",
    ),
    "beaten in pairs": (
        lambda scores: scores["comparisons"]["one"]["over_all"][0].update(difference=-0.5),
        "alpha has the highest mean grade, 3.25 of 4, and yet beta is ahead of it on the items",
    ),
    "flat": (_flat, "Who is ahead cannot be said by the judge one: 97.0 % of the grades are 4."),
    "same mean": (
        _set("models", {"alpha": model({"one": 3.0}), "beta": model({"one": 3.0})}),
        "By the judge one, nobody is ahead: alpha and beta have the same highest mean grade.",
    ),
    "one model": (
        lambda scores: scores.update(models={"alpha": model({"one": 3.25})}, comparisons={}, wins={}),
        "alpha has a mean grade of 3.25 of 4 (95 % interval 3.08 to 3.44); with one model there is nothing",
    ),
    "nothing tested": (_set("comparisons", {}), "against beta, nothing could be tested."),
    "nothing judged": (
        _set("models", {"alpha": model({"one": None})}),
        "Nothing can be said by the judge one: not one answer has a grade.",
    ),
    "rules": (
        _set("judges.one", judge(is_offline=True)),
        "Not said by any of this: how good the answers are for a clinician. The grades come from rules",
    ),
    "no judge": (
        lambda scores: scores.update(judges={}, models={"alpha": model({})}, comparisons={}, positions={}),
        "Nobody graded the answers",
    ),
}


@pytest.mark.parametrize(("change", "said"), HEADLINES.values(), ids=HEADLINES)
def test_the_headline_says_what_the_figures_show_and_no_more(root: Folder, change: Change, said: str) -> None:
    scores = sound_scores()
    change(scores)
    _, page = show(root, scores)
    assert said in page.text
    assert page.text.index(said) < page.text.index("What was done", page.text.index("Examples"))


def test_a_leader_of_three_is_said_to_be_ahead_of_those_alone_of_whom_it_is_shown(root: Folder) -> None:
    scores = full_scores()
    scores["comparisons"]["one"]["over_all"][0]["p_adjusted"] = 0.3
    _, page = show(root, scores)
    said = "and is ahead of gamma; that it is ahead of beta is not shown, as after correction"
    assert said in page.text
    assert "The judges differ on whose mean is the highest: alpha by one, beta by two." in page.text
