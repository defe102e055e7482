"""Artefacts → what each part of the page shows, as pure functions; the template only lays it out."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from asclepius_ray.report.plots import draw_histogram

GRADE_NAMES = {"1": "unacceptable", "2": "poor", "3": "satisfactory", "4": "excellent"}


@dataclass(frozen=True)
class Bar:
    """One row of a table with a bar; `share` of the whole, 0 to 1. kind is a CSS class."""

    label: str
    count: int
    share: float
    kind: str = "ok"


@dataclass(frozen=True)
class MeanGrade:
    """One model's score over all by one judge."""

    model: str
    judge: str
    score: Mapping[str, Any]


@dataclass(frozen=True)
class Lengths:
    """How long one column's texts are, in words."""

    column: str
    rows: int
    smallest: int
    median: float
    percentile_95: int
    largest: int
    plot: Markup


def funnel_bars(counts: Mapping[str, Any], source: str) -> list[Bar]:
    """input, ok, then each reason of rejection and each class of failure; they add up to the input."""
    total = counts["input"]
    bars = [Bar(f"{source} read", total, 1.0, "input"), _bar("in the dataset", counts["ok"], total, "ok")]
    for state, verb in (("rejected", "rejected"), ("failed", "failed")):
        reasons = sorted(counts.get(state, {}).items(), key=lambda entry: (-entry[1], entry[0]))
        bars += [_bar(f"{verb}: {_spoken(reason)}", count, total, state) for reason, count in reasons]
    return bars


def task_bars(tasks: Mapping[str, int]) -> list[Bar]:
    total = sum(tasks.values())
    return [
        _bar(task, count, total, "ok")
        for task, count in sorted(tasks.items(), key=lambda entry: (-entry[1], entry[0]))
    ]


def describe_lengths(lengths_words: Mapping[str, Sequence[int]]) -> list[Lengths]:
    return [_lengths(column, sorted(words)) for column, words in lengths_words.items() if words]


def mean_grades(scores: Mapping[str, Any]) -> list[MeanGrade]:
    """Every model by every judge that was to grade it; [] where nothing has been evaluated."""
    return [
        MeanGrade(model, judge, values["grades"][judge]["over_all"])
        for judge in scores.get("judges", {})
        for model, values in scores["models"].items()
        if judge in (values["grades"] or {})
    ]


def offline_judges(scores: Mapping[str, Any]) -> list[str]:
    """The judges that are rules and no language model."""
    return [name for name, judge in scores.get("judges", {}).items() if judge["is_offline"]]


def loss_sentence(difference: Mapping[str, Any] | None) -> str:
    """What the paired difference of the answer loss says, and what it does not."""
    if difference is None:
        return "Only one model was evaluated: there is no difference to state."
    if difference["mean"] is None:
        return "No held-out row fits into the sequence length: there is no difference to state."
    if difference["low"] is None:
        return "One row alone allows no interval."
    if difference["high"] < 0:
        return (
            "The interval lies below zero: training lowered the loss on answers that the model had not seen."
        )
    if difference["low"] > 0:
        return (
            "The interval lies above zero: training raised the loss on answers that the model had not seen."
        )
    return "The interval holds zero: a difference is not shown."


def _bar(label: str, count: int, total: int, kind: str) -> Bar:
    return Bar(label, count, count / total if total else 0.0, kind)


def _spoken(code: str) -> str:
    return code.replace("_", " ").replace(".", " · ")


def _lengths(column: str, words: Sequence[int]) -> Lengths:
    median = statistics.median(words)
    percentile_95 = words[min(len(words) - 1, round(0.95 * (len(words) - 1)))]
    description = (
        f"Histogram of the words per {column} over {len(words)} rows: smallest {words[0]}, "
        f"median {median:g}, 95th percentile {percentile_95}, largest {words[-1]}."
    )
    plot = draw_histogram(f"length-{column}", words, f"words per {column}", description)
    return Lengths(column, len(words), words[0], median, percentile_95, words[-1], plot)
