"""The figures of filled sheets: foreseen by hand, and said to be missing where they are."""

import json
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from invented_study import MODELS, RATERS, draw, foreseen_grade, write_saved, write_study

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import InputError
from asclepius_ray.evaluation.agreement import alpha_of, weighted_kappa_of
from asclepius_ray.evaluation.records import GRADES_NAME, Grade, Verdict, read_records
from asclepius_ray.evaluation.sheets.comparing import compare_sheets
from asclepius_ray.evaluation.sheets.results import describe_figures
from asclepius_ray.evaluation.sheets.study import judge_scores


def stricter(item_id: str, model: str) -> int:
    return max(1, foreseen_grade(item_id, model) - 1)


def test_scores_of_models_are_the_means_over_answers_and_raters(study: Folder, tmp_path: Path) -> None:
    key = draw(study, tmp_path / "out").key
    anna = write_saved(tmp_path, key, "anna", foreseen_grade)
    ben = write_saved(tmp_path, key, "ben", stricter)
    figures = compare_sheets(study, [anna, ben], tmp_path / "out" / "key.json")
    for model in MODELS:
        given: dict[str, list[int]] = {}
        for rater, grade in (("anna", foreseen_grade), ("ben", stricter)):
            for item_id, of_model in key.answers_of(rater).values():
                if of_model == model:
                    given.setdefault(item_id, []).append(grade(item_id, model))
        score = figures["models"][model]
        assert score["value"] == pytest.approx(fmean(fmean(grades) for grades in given.values()), abs=1e-12)
        assert score["n"] == len(given)
        assert score["grades"] == sum(len(grades) for grades in given.values()) > len(given)
        assert sum(score["grade_shares"].values()) == pytest.approx(1)
        assert score["low"] < score["value"] < score["high"]


def test_a_judges_score_is_the_mean_over_the_orders_that_it_judged() -> None:
    def grade(order: int, value: int | None) -> Grade:
        verdict = Verdict.JUDGE_UNREADABLE if value is None else Verdict.JUDGED
        return Grade("item", "model", "judge", order, 0, value, verdict)

    assert judge_scores([grade(0, 2), grade(1, 3), grade(2, None)]) == {"judge": {("item", "model"): 2.5}}
    assert judge_scores([grade(0, None)]) == {}


def test_raters_are_compared_with_each_other_and_with_the_judge(study: Folder, tmp_path: Path) -> None:
    key = draw(study, tmp_path / "out", overlap=1.0).key
    graders = {"anna": foreseen_grade, "ben": stricter, "chris": foreseen_grade}
    files = [write_saved(tmp_path, key, rater, grade) for rater, grade in graders.items()]
    figures = compare_sheets(study, files, tmp_path / "out" / "key.json")
    answers = sorted(key.answers_of("anna").values())
    notes = [item_id.rpartition("-")[0] for item_id, _ in answers]
    columns = {
        rater: np.array([grade(*answer) for answer in answers], float) for rater, grade in graders.items()
    }
    judged = judge_scores(read_records(study.child("evaluation"), GRADES_NAME, Grade))["judge-j"]
    judge = np.array([judged[answer] for answer in answers])
    assert len(set(judge.tolist())) > 4
    assert figures["notes"] == len(set(notes)) == 12
    among = figures["among_raters"]
    assert among["alpha"].items() >= alpha_of(np.stack(list(columns.values())), notes, 7).to_json().items()
    assert [pair["raters"] for pair in among["pairs"]] == [
        ["anna", "ben"],
        ["anna", "chris"],
        ["ben", "chris"],
    ]
    kappa = weighted_kappa_of(columns["anna"], columns["ben"], notes, 7)
    assert among["pairs"][0]["weighted_kappa"].items() >= kappa.to_json().items()
    assert among["pairs"][1]["weighted_kappa"]["value"] == pytest.approx(1)
    with_judge = figures["with_judges"]["judge-j"]
    mean = sum(columns.values()) / 3
    for name, column in {"mean_of_raters": mean, **columns}.items():
        compared = with_judge[name] if name == "mean_of_raters" else with_judge["raters"][name]
        assert compared["alpha"].items() >= alpha_of(np.stack([column, judge]), notes, 7).to_json().items()
        assert (
            compared["weighted_kappa"].items() >= weighted_kappa_of(column, judge, notes, 7).to_json().items()
        )


def numbers_in(values: Any) -> list[float]:
    if isinstance(values, dict):
        return [number for value in values.values() for number in numbers_in(value)]
    if isinstance(values, list):
        return [number for value in values for number in numbers_in(value)]
    return [values] if isinstance(values, float) else []


def test_one_rater_without_a_judge_has_scores_and_every_gap_is_said(tmp_path: Path) -> None:
    root = Folder(str(tmp_path / "run"))
    write_study(root, with_judge=False)
    key = draw(root, tmp_path / "out").key
    files = [write_saved(tmp_path, key, "anna", lambda *_: 4)]
    figures = compare_sheets(root, files, tmp_path / "out" / "key.json")
    written = json.loads((tmp_path / "run" / "evaluation" / "agreement.json").read_text())
    assert written == figures
    assert all(np.isfinite(numbers_in(written)))
    assert written["among_raters"]["alpha"]["value"] is None
    assert written["with_judges"] == {}
    assert written["raters"]["anna"]["missing"] == 0
    assert written["raters"]["ben"]["graded"] == 0
    said = "\n".join(describe_figures(figures))
    assert "alpha among the raters: not computed, as no answer has grades of two" in said
    assert "the mean grade of vossberg: no interval, as every resample gives the same figure" in said
    assert "no judge has graded these answers" in said
    assert f"ben: 0 of {written['raters']['ben']['answers']} answers graded" in said


def test_raters_without_variation_have_no_agreement(study: Folder, tmp_path: Path) -> None:
    key = draw(study, tmp_path / "out", overlap=1.0).key
    files = [write_saved(tmp_path, key, rater, lambda *_: 3) for rater in RATERS]
    figures = compare_sheets(study, files, tmp_path / "out" / "key.json")
    assert figures["among_raters"]["alpha"] == {
        "value": None,
        "low": None,
        "high": None,
        "n": len(key.answers_of("anna")),
        "resamples_left_out": 0,
        "why_not": "all grades are the same",
    }


def test_the_latex_tables_hold_every_figure_and_escape_every_name(study: Folder, tmp_path: Path) -> None:
    key = draw(study, tmp_path / "out", raters=("anna_b", "ben"), overlap=1.0).key
    files = [
        write_saved(tmp_path, key, "anna_b", foreseen_grade),
        write_saved(tmp_path, key, "ben", lambda *_: None),
    ]
    figures = compare_sheets(study, files, tmp_path / "out" / "key.json")
    latex = (tmp_path / "run" / "evaluation" / "agreement.tex").read_text()
    rows = [line for line in latex.splitlines() if line.endswith(r"\\")]
    # Two headings, three models, the raters' alpha and kappa, and two figures for the mean and each rater.
    assert len(rows) == 2 + 3 + 2 + 2 * 3
    assert all(row.count("&") == 3 for row in rows)
    score = figures["models"]["vossberg"]
    assert (
        f"vossberg & ${score['value']:.3f}$ & $[{score['low']:.3f}, {score['high']:.3f}]$ & {score['n']} "
        in latex
    )
    assert r"anna\_b and ben, weighted kappa & -- & -- & 0 \\" in latex
    assert "anna_b" not in latex


def test_a_key_of_another_run_is_refused(study: Folder, camel: Folder, tmp_path: Path) -> None:
    key = draw(study, tmp_path / "out").key
    file = write_saved(tmp_path, key, "anna", foreseen_grade)
    with pytest.raises(InputError, match="lacks 24 of the 24 items of the key"):
        compare_sheets(camel, [file], tmp_path / "out" / "key.json")
    with pytest.raises(InputError, match="there is no file"):
        compare_sheets(study, [tmp_path / "none.json"], tmp_path / "out" / "key.json")
