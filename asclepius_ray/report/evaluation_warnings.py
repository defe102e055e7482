"""The figures of an evaluation → what a reader must know before believing them, as pure functions."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from asclepius_ray.report.evaluation_artefacts import Places
from asclepius_ray.report.rendering import format_figure, format_interval, format_percent, format_reasons

FLAT_SHARE = 0.95
"""From this share of one grade on, a judge tells answers apart too seldom to rank who gave them."""
LOST_SHARE = 0.01
FEWEST_NOTES = 30
CANCELLED_SHARE = 0.1
"""Of a position bias: what may be left between two models for it to count as cancelled."""
Values = Mapping[str, Any]


class WarningKind(StrEnum):
    """What a warning is about."""

    RULES = "rules"
    FLAT = "flat"
    NOTHING_JUDGED = "nothing_judged"
    POSITION_BIAS = "position_bias"
    BIAS_LEFT = "bias_left"
    ONE_ORDER = "one_order"
    UNJUDGED = "unjudged"
    UNREADABLE = "unreadable"
    FAILED_ANSWERS = "failed_answers"
    FEW_NOTES = "few_notes"
    CUT_ANSWERS = "cut_answers"


@dataclass(frozen=True)
class Caution:
    """One warning; `judge` is whom it is about, "" where it is about nobody's grades alone."""

    kind: WarningKind
    text: str
    judge: str = ""


def find_cautions(scores: Values, places: Places) -> list[Caution]:
    """Every warning that the figures call for; [] where they call for none."""
    found = list(_about_test_set(scores))
    for judge in scores["judges"]:
        found += _about_judge(scores, judge)
        found += _about_position(scores, judge, places.get(judge, {}))
    return found + list(_about_models(scores))


def pooled_shares(scores: Values, judge: str) -> dict[str, float]:
    """The share of each grade over all models; {} where the judge gave none."""
    sums: Counter[str] = Counter()
    for score in scores_by(scores, judge).values():
        for grade, share in (score["grade_shares"] or {}).items():
            sums[grade] += share * score["judged"]
    total = sum(sums.values())
    return {grade: amount / total for grade, amount in sums.items()} if total else {}


def is_flat(scores: Values, judge: str) -> bool:
    return max(pooled_shares(scores, judge).values(), default=0.0) >= FLAT_SHARE


def scores_by(scores: Values, judge: str) -> dict[str, Values]:
    """Model → its score over all by one judge; who was not given to that judge is not in it."""
    return {
        model: values["grades"][judge]["over_all"]
        for model, values in scores["models"].items()
        if judge in (values["grades"] or {})
    }


def _about_test_set(scores: Values) -> Iterator[Caution]:
    notes = scores["test_set"]["notes"]
    if notes < FEWEST_NOTES:
        yield Caution(
            WarningKind.FEW_NOTES,
            f"Only {notes} note{'s were' if notes != 1 else ' was'} asked about. With fewer than "
            f"{FEWEST_NOTES}, an interval drawn from them misses the truth more often than its 95 % promise.",
        )


def _about_judge(scores: Values, judge: str) -> Iterator[Caution]:
    facts, by_model = scores["judges"][judge], scores_by(scores, judge)
    if facts["is_offline"]:
        yield Caution(
            WarningKind.RULES,
            f"{judge} is a set of rules and no language model: it compares words with the note. Its grades "
            "show that every part works, and say nothing about clinical quality.",
            judge,
        )
    if not any(score["judged"] for score in by_model.values()):
        yield Caution(WarningKind.NOTHING_JUDGED, f"{judge} has not given a single grade.", judge)
    elif is_flat(scores, judge):
        grade, share = max(pooled_shares(scores, judge).items(), key=lambda entry: entry[1])
        yield Caution(
            WarningKind.FLAT,
            f"{judge} does not tell the answers apart: {format_percent(share)} of its grades are {grade}. "
            "Its means cannot rank the models.",
            judge,
        )
    unjudged = {model: score["unjudged"] - score["not_asked"] for model, score in by_model.items()}
    lost = [
        f"{model} {_share_of(unjudged[model], score['items'])}"
        for model, score in by_model.items()
        if score["items"] and unjudged[model] / score["items"] > LOST_SHARE
    ]
    if lost:
        yield Caution(
            WarningKind.UNJUDGED,
            f"{judge} left items without a grade: {', '.join(lost)}. They are in no mean, and need not be "
            "like those that are.",
            judge,
        )
    unreadable, requests = facts["unreadable_replies"], facts["requests"]
    if requests and unreadable / requests > LOST_SHARE:
        yield Caution(
            WarningKind.UNREADABLE,
            f"Of {requests} replies of {judge}, {unreadable} held no grades that can be read "
            f"({format_percent(unreadable / requests)}). Each was asked for again, never counted.",
            judge,
        )


def _about_position(scores: Values, judge: str, places: Mapping[str, Counter[int]]) -> Iterator[Caution]:
    protocol = scores["protocol"]
    if protocol["kind"] == "together" and protocol["orders"] == 1 and len(scores["models"]) > 1:
        yield Caution(
            WarningKind.ONE_ORDER,
            f"{judge} saw each item in one order alone: a liking for a place cannot be told from chance.",
            judge,
        )
    bias = ((scores["positions"] or {}).get(judge) or {}).get("first_minus_last")
    if not bias or bias["low"] is None or bias["low"] <= 0 <= bias["high"]:
        return
    left = bias_left(scores["positions"][judge]["places"], places)
    side = "first" if bias["value"] > 0 else "last"
    text = (
        f"{judge} prefers the answer that stands {side}: by {format_figure(abs(bias['value']))} grades "
        f"(first minus last {format_figure(bias['value'])}, 95 % interval {format_interval(bias)}). "
    )
    yield Caution(WarningKind.POSITION_BIAS, text + _say_left(bias["value"], left), judge)
    if left is not None and not _is_cancelled(bias["value"], left):
        yield Caution(
            WarningKind.BIAS_LEFT,
            f"The orders that {judge} saw are not balanced: its ranking may be the order's doing.",
            judge,
        )


def bias_left(place_scores: list[Values], places: Mapping[str, Counter[int]]) -> float | None:
    """How many grades the places alone put between the model they favour most and the one they favour least.

    Each model is given the mean of its places, weighted by how often it stood there: with balanced orders all
    models get the same. None where it is not known how often a model stood where.
    """
    means = {entry["place"]: entry["mean"] for entry in place_scores if entry["mean"] is not None}
    known = [{place: counts[place] for place in counts if place in means} for counts in places.values()]
    expected = [
        sum(means[place] * number for place, number in counts.items()) / sum(counts.values())
        for counts in known
        if counts
    ]
    return max(expected) - min(expected) if expected else None


def _is_cancelled(bias: float, left: float) -> bool:
    return left <= CANCELLED_SHARE * abs(bias)


def _say_left(bias: float, left: float | None) -> str:
    if left is None:
        return (
            "Whether the orders are balanced, so that it cancels, is not known: the table of grades is gone."
        )
    if _is_cancelled(bias, left):
        return (
            "The orders are balanced, each model stood in each place about equally often, so that it cancels "
            f"in the means: at most {format_figure(left, 3)} grades of it are left between two models."
        )
    return (
        "The orders are not balanced, some models stood more often in the better places: "
        f"{format_figure(left, 3)} grades of it are left between two models."
    )


def _about_models(scores: Values) -> Iterator[Caution]:
    failed = [
        f"{model} {sum(values['failed'].values())} ({format_reasons(values['failed'])})"
        for model, values in scores["models"].items()
        if values["failed"]
    ]
    if failed:
        yield Caution(
            WarningKind.FAILED_ANSWERS,
            f"Questions were left without an answer: {', '.join(failed)}. They are in no mean.",
        )
    cut = [
        f"{model} {_share_of(values['cut_at_token_limit'], values['answers'])}"
        for model, values in scores["models"].items()
        if values["cut_at_token_limit"]
    ]
    if cut:
        yield Caution(
            WarningKind.CUT_ANSWERS,
            f"Answers were cut at the limit of {scores['protocol']['max_new_tokens']} tokens and graded as "
            f"they are: {', '.join(cut)}.",
        )


def _share_of(number: int, total: int) -> str:
    return f"{number} of {total} ({format_percent(number / total if total else None)})"
