"""The figures of an evaluation → the tables and plots of its page, as pure functions."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from asclepius_ray.report.evaluation_artefacts import Places
from asclepius_ray.report.evaluation_headline import over_all_pairs
from asclepius_ray.report.evaluation_plots import Point, draw_differences, draw_grades, draw_shares
from asclepius_ray.report.evaluation_warnings import scores_by
from asclepius_ray.report.rendering import format_figure, format_interval, format_percent
from asclepius_ray.report.views import GRADE_NAMES

Values = Mapping[str, Any]
OVER_ALL, NO_TASK = "Over all", "without a task"
_MOST_DRAWN_PAIRS = 15
"""More would be a plot higher than a page; the table has them all."""


@dataclass(frozen=True)
class TaskScores:
    """One row of the table of scores; a model without any is not in it."""

    task: str
    by_model: dict[str, Values]


@dataclass(frozen=True)
class Balance:
    """How often one model was graded in each place."""

    model: str
    counts: tuple[int, ...]


@dataclass(frozen=True)
class JudgeView:
    """All that the page shows of one judge; `number` keeps the names of its plots apart."""

    name: str
    number: int
    facts: Values
    rows: list[TaskScores]
    """The tasks, then over all."""
    over_all: dict[str, Values]
    plots: list[Markup]
    shares_plot: Markup | None
    pairs: list[Values]
    task_pairs: list[tuple[str, Values]]
    pairs_plot: Markup | None
    wins: Values | None
    positions: Values | None
    balance: list[Balance]


def describe_judges(scores: Values, places: Places) -> list[JudgeView]:
    return [
        _describe_judge(scores, judge, number, places.get(judge, {}))
        for number, judge in enumerate(scores["judges"])
    ]


def task_scores(scores: Values, judge: str) -> list[TaskScores]:
    """Every task in which the judge graded anything, by name, and over all as the last row."""
    graded = {
        model: values["grades"][judge]
        for model, values in scores["models"].items()
        if judge in (values["grades"] or {})
    }
    tasks = sorted({task for score in graded.values() for task in score["tasks"]})
    rows = [
        TaskScores(
            task or NO_TASK,
            {model: score["tasks"][task] for model, score in graded.items() if task in score["tasks"]},
        )
        for task in tasks
    ]
    return [*rows, TaskScores(OVER_ALL, {model: score["over_all"] for model, score in graded.items()})]


def name_agreements(agreement: Values) -> Iterator[tuple[str, str, Values]]:
    """Who is compared, by which measure, and the figure: the raters with each other, then with each judge."""
    yield "all raters", "alpha", agreement["among_raters"]["alpha"]
    for pair in agreement["among_raters"]["pairs"]:
        yield " and ".join(pair["raters"]), "weighted kappa", pair["weighted_kappa"]
    for judge, compared in agreement["with_judges"].items():
        for name, figures in {"the raters' mean": compared["mean_of_raters"], **compared["raters"]}.items():
            yield f"{name} with the judge {judge}", "alpha", figures["alpha"]
            yield f"{name} with the judge {judge}", "weighted kappa", figures["weighted_kappa"]


def unfaithful_kinds(scores: Values) -> list[str]:
    """The kinds of what answers say and their notes do not, in the order in which they are counted."""
    return list(
        dict.fromkeys(kind for model in scores["models"].values() for kind in model["texts"]["unfaithful"])
    )


def _describe_judge(scores: Values, judge: str, number: int, places: Mapping[str, Counter[int]]) -> JudgeView:
    rows, over_all = task_scores(scores, judge), scores_by(scores, judge)
    series = {model: place for place, model in enumerate(scores["models"])}
    shares = {model: score["grade_shares"] for model, score in over_all.items() if score["judged"]}
    pairs = over_all_pairs(scores, judge)
    by_task = ((scores["comparisons"] or {}).get(judge) or {}).get("tasks") or {}
    return JudgeView(
        name=judge,
        number=number,
        facts=scores["judges"][judge],
        rows=rows,
        over_all=over_all,
        plots=[
            _draw_row(row, f"scores-{number}-{place}", series, judge)
            for place, row in enumerate(rows)
            if row.by_model
        ],
        shares_plot=draw_shares(f"shares-{number}", shares, _tell_shares(shares, judge)) if shares else None,
        pairs=pairs,
        task_pairs=[(task, pair) for task, found in sorted(by_task.items()) for pair in found],
        pairs_plot=_draw_pairs(pairs[:_MOST_DRAWN_PAIRS], number, judge) if pairs else None,
        wins=(scores["wins"] or {}).get(judge),
        positions=(scores["positions"] or {}).get(judge),
        balance=_balance(places),
    )


def _draw_row(row: TaskScores, name: str, series: Mapping[str, int], judge: str) -> Markup:
    points = [
        Point(model, score["mean"], score["low"], score["high"], series[model])
        for model, score in row.by_model.items()
    ]
    told = "; ".join(f"{model} {_tell_score(score)}" for model, score in row.by_model.items())
    return draw_grades(name, points, f"Mean grades of 1 to 4 by {judge}, {row.task}: {told}.")


def _tell_score(score: Values) -> str:
    if score["mean"] is None:
        return "nothing judged"
    return f"{format_figure(score['mean'])}, 95 % interval {format_interval(score)}"


def _tell_shares(shares: Mapping[str, Mapping[str, float]], judge: str) -> str:
    told = "; ".join(
        f"{model} "
        + ", ".join(
            f"{grade} {name} {format_percent(by_grade.get(grade, 0.0))}"
            for grade, name in sorted(GRADE_NAMES.items(), reverse=True)
        )
        for model, by_grade in shares.items()
    )
    return f"Share of each grade by {judge}: {told}."


def _draw_pairs(pairs: Sequence[Values], number: int, judge: str) -> Markup:
    points = [Point(_pair_label(pair), pair["difference"], pair["low"], pair["high"]) for pair in pairs]
    told = "; ".join(
        f"{pair['a']} minus {pair['b']} {format_figure(pair['difference'])}, "
        f"95 % interval {format_interval(pair)}"
        for pair in pairs
    )
    return draw_differences(
        f"pairs-{number}", points, f"Paired differences of the grades by {judge}: {told}."
    )


def _pair_label(pair: Values) -> str:
    """Both names, each cut to its half of the room."""
    return " − ".join(name if len(name) <= 10 else name[:9] + "…" for name in (pair["a"], pair["b"]))


def _balance(places: Mapping[str, Counter[int]]) -> list[Balance]:
    num_places = max((place for counts in places.values() for place in counts), default=-1) + 1
    return [
        Balance(model, tuple(counts[place] for place in range(num_places)))
        for model, counts in sorted(places.items())
    ]
