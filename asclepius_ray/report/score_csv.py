"""The figures of an evaluation → a long table: one figure a row, for statistics or a spreadsheet."""

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from asclepius_ray.report.evaluation_views import OVER_ALL, task_scores

Values = Mapping[str, Any]
_BEGINS_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")


class Row(NamedTuple):
    """One figure. What is not known, or does not apply, is empty."""

    judge: str
    model: str
    against: str
    """The model that is subtracted, in a paired difference."""
    task: str
    measure: str
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    p: float | None = None
    p_adjusted: float | None = None


def write_csv(scores: Values, agreement: Values | None) -> str:
    """The table with its header; no cell of text is one that a spreadsheet would run.

    `agreement`: what clinicians' sheets have said, None where there are none.
    """
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(Row._fields)
    rows = [*_rows(scores), *(_clinician_rows(agreement) if agreement else ())]
    for row in rows:
        writer.writerow([_cell(value) for value in row])
    return stream.getvalue()


def _cell(value: str | float | None) -> str | float | None:
    """A figure as it is; a text without line breaks, behind an apostrophe where it looks like a formula."""
    if not isinstance(value, str):
        return value
    text = " ".join(value.split())
    return f"'{text}" if text.startswith(_BEGINS_FORMULA) else text


def _rows(scores: Values) -> Iterator[Row]:
    for judge in scores["judges"]:
        for by_task in task_scores(scores, judge):
            for model, score in by_task.by_model.items():
                yield from _score_rows(judge, model, by_task.task, score)
        yield from _pair_rows(scores, judge)
    for model, values in scores["models"].items():
        yield from _text_rows(model, values)


def _clinician_rows(agreement: Values) -> Iterator[Row]:
    """Without the names of the raters: the means of all, how they agree among them and with each judge."""

    def row(judge: str, model: str, measure: str, figure: Values) -> Row:
        values = (figure["value"], figure["low"], figure["high"], figure["n"])
        return Row(judge, model, "", OVER_ALL, measure, *values)

    for model, figure in agreement["models"].items():
        yield row("", model, "clinicians_mean_grade", figure)
    yield row("", "", "clinicians_alpha", agreement["among_raters"]["alpha"])
    for judge, compared in agreement["with_judges"].items():
        for measure in ("alpha", "weighted_kappa"):
            yield row(judge, "", f"clinicians_with_judge_{measure}", compared["mean_of_raters"][measure])


def _score_rows(judge: str, model: str, task: str, score: Values) -> Iterator[Row]:
    yield Row(
        judge, model, "", task, "mean_grade", score["mean"], score["low"], score["high"], score["judged"]
    )
    for grade in "1234":
        share = (score["grade_shares"] or {}).get(grade, 0.0) if score["judged"] else None
        yield Row(judge, model, "", task, f"share_of_grade_{grade}", share, n=score["judged"])
    for measure in ("items", "judged", "unjudged", "failed"):
        yield Row(judge, model, "", task, measure, score[measure])


def _pair_rows(scores: Values, judge: str) -> Iterator[Row]:
    found = (scores["comparisons"] or {}).get(judge) or {}
    groups = [*sorted((found.get("tasks") or {}).items()), (OVER_ALL, found.get("over_all") or [])]
    for task, pairs in groups:
        for pair in pairs:
            yield Row(
                judge,
                pair["a"],
                pair["b"],
                task,
                "paired_difference",
                pair["difference"],
                pair["low"],
                pair["high"],
                pair["n"],
                pair["p"],
                pair["p_adjusted"],
            )


def _text_rows(model: str, values: Values) -> Iterator[Row]:
    texts = values["texts"]
    named = ("declined_share", "refusal_share", "empty_share", "unfaithful_any")
    figures = {name: texts[name] for name in named}
    figures |= {f"unfaithful_{kind}": share for kind, share in texts["unfaithful"].items()}
    figures |= {f"words_{name}": words for name, words in texts["words"].items()}
    for measure, value in figures.items():
        yield Row("", model, "", OVER_ALL, measure, value, n=texts["answers"])
    yield from _declining_rows(model, values["unanswerable"])
    for measure in ("rouge_l", "token_f1", "exact"):
        if values["reference"]:
            found = values["reference"][measure]
            interval = (found["value"], found["low"], found["high"])
            yield Row("", model, "", OVER_ALL, measure, *interval, n=found["n"])


def _declining_rows(model: str, unanswerable: Values | None) -> Iterator[Row]:
    """How often the model declined what its note cannot answer; by the phrases no judge is named."""
    if not unanswerable:
        return
    shares = {"": unanswerable["declined_by_phrases"], **(unanswerable["declined_by_judge"] or {})}
    for judge, share in shares.items():
        yield Row(judge, model, "", OVER_ALL, "declined_unanswerable", share, n=unanswerable["items"])
