"""The figures of an evaluation → what can be said and what cannot, in plain words; pure functions."""

from collections.abc import Mapping, Sequence
from typing import Any

from asclepius_ray.report.evaluation_warnings import (
    Caution,
    WarningKind,
    is_flat,
    pooled_shares,
    scores_by,
)
from asclepius_ray.report.rendering import format_figure, format_interval, format_percent, format_probability

SIGNIFICANCE = 0.05
Values = Mapping[str, Any]


def write_headline(scores: Values, cautions: Sequence[Caution]) -> list[str]:
    """One sentence on the warnings where there are any, one or two a judge, and one on the limits of all."""
    sentences = []
    if cautions:
        number = len(cautions)
        warnings = "1 warning stands" if number == 1 else f"{number} warnings stand"
        sentences.append(f"{warnings} below: read {'it' if number == 1 else 'them'} before the figures.")
    sentences += [_judge_sentence(scores, judge, cautions) for judge in scores["judges"]]
    leaders = _leaders(scores)
    if len(set(leaders.values())) > 1:
        said = ", ".join(f"{leader} by {judge}" for judge, leader in leaders.items())
        sentences.append(f"The judges differ on whose mean is the highest: {said}.")
    return [*sentences, _limits(scores)]


def is_shown(pair: Values) -> bool:
    """Whether a paired difference stays clear of zero after the correction for the number of comparisons."""
    return pair["p_adjusted"] is not None and pair["p_adjusted"] < SIGNIFICANCE


def difference_of(pairs: Sequence[Values], model: str, other: str) -> Values | None:
    """The pair of two models, turned so that its difference is model − other; None where there is none."""
    for pair in pairs:
        if (pair["a"], pair["b"]) == (model, other):
            return pair
        if (pair["a"], pair["b"]) == (other, model):
            return {
                **pair,
                "a": model,
                "b": other,
                "difference": _negate(pair["difference"]),
                "low": _negate(pair["high"]),
                "high": _negate(pair["low"]),
            }
    return None


def over_all_pairs(scores: Values, judge: str) -> list[Values]:
    pairs: list[Values] = ((scores["comparisons"] or {}).get(judge) or {}).get("over_all") or []
    return pairs


def _negate(value: float | None) -> float | None:
    return None if value is None else -value


def _ranked(scores: Values, judge: str) -> list[str]:
    """The models that the judge graded, the highest mean first."""
    means = {model: score["mean"] for model, score in scores_by(scores, judge).items()}
    return sorted((model for model in means if means[model] is not None), key=lambda model: -means[model])


def _first(scores: Values, judge: str) -> list[str]:
    """The models with the highest mean: one, unless some share it."""
    ranked, by_model = _ranked(scores, judge), scores_by(scores, judge)
    return [model for model in ranked if by_model[model]["mean"] == by_model[ranked[0]]["mean"]]


def _leaders(scores: Values) -> dict[str, str]:
    """Judge → the one model with its highest mean, of the judges whose grades rank anything."""
    return {
        judge: first[0]
        for judge in scores["judges"]
        if len(_ranked(scores, judge)) > 1
        and len(first := _first(scores, judge)) == 1
        and not is_flat(scores, judge)
    }


def _judge_sentence(scores: Values, judge: str, cautions: Sequence[Caution]) -> str:
    ranked = _ranked(scores, judge)
    name = f"the rules {judge}" if scores["judges"][judge]["is_offline"] else f"the judge {judge}"
    if not ranked:
        return f"Nothing can be said by {name}: not one answer has a grade."
    if is_flat(scores, judge):
        grade, share = max(pooled_shares(scores, judge).items(), key=lambda entry: entry[1])
        return f"Who is ahead cannot be said by {name}: {format_percent(share)} of the grades are {grade}."
    if len(ranked) == 1:
        score = scores_by(scores, judge)[ranked[0]]
        return (
            f"By {name}, {ranked[0]} has a mean grade of {format_figure(score['mean'])} of 4 (95 % interval "
            f"{format_interval(score)}); with one model there is nothing to compare."
        )
    if len(first := _first(scores, judge)) > 1:
        return f"By {name}, nobody is ahead: {_names(first)} have the same highest mean grade."
    sentence = f"By {name}, {_lead(scores, judge, ranked)}"
    if any(caution.kind is WarningKind.BIAS_LEFT and caution.judge == judge for caution in cautions):
        sentence += " This may be the doing of the order in which the answers were shown."
    return sentence


def _lead(scores: Values, judge: str, ranked: Sequence[str]) -> str:
    leader, *others = ranked
    pairs = over_all_pairs(scores, judge)
    against = {other: difference_of(pairs, leader, other) for other in others}
    shown = [other for other, pair in against.items() if pair is not None and _is_ahead(pair)]
    open_ = [other for other in others if other not in shown]
    beaten_by = [other for other, pair in against.items() if pair is not None and _is_behind(pair)]
    mean = format_figure(scores_by(scores, judge)[leader]["mean"])
    corrected = "after correction for the number of comparisons"
    nearest = _describe(against[(open_ or shown)[0]], (open_ or shown)[0])
    if beaten_by:
        return (
            f"{leader} has the highest mean grade, {mean} of 4, and yet {_names(beaten_by)} is ahead of it "
            "on the items that both have a score for: the means are of different items."
        )
    if not open_:
        return (
            f"{leader} is ahead with a mean grade of {mean} of 4: its difference to {_names(shown)} stays "
            f"clear of zero {corrected}; {nearest}."
        )
    if shown:
        return (
            f"{leader} has the highest mean grade, {mean} of 4, and is ahead of {_names(shown)}; that it is "
            f"ahead of {_names(open_)} is not shown, as {corrected} the difference may be zero; {nearest}."
        )
    return (
        f"{leader} has the highest mean grade, {mean} of 4, but that it is ahead is not shown: {corrected} "
        f"its difference to {_names(open_)} may be zero; {nearest}."
    )


def _is_ahead(pair: Values) -> bool:
    return is_shown(pair) and pair["difference"] is not None and pair["difference"] > 0


def _is_behind(pair: Values) -> bool:
    return is_shown(pair) and pair["difference"] is not None and pair["difference"] < 0


def _describe(pair: Values | None, other: str) -> str:
    if pair is None or pair["p_adjusted"] is None:
        return f"against {other}, nothing could be tested"
    return (
        f"against {other}, {format_figure(pair['difference'])} grades (95 % interval "
        f"{format_interval(pair)}, corrected p {_equals(pair['p_adjusted'])})"
    )


def _equals(probability: float) -> str:
    shown = format_probability(probability)
    return shown if shown.startswith("<") else f"= {shown}"


def _names(models: Sequence[str]) -> str:
    return models[0] if len(models) == 1 else ", ".join(models[:-1]) + " and " + models[-1]


def _limits(scores: Values) -> str:
    if not scores["judges"]:
        return "Nobody graded the answers: what is below was found by counting."
    if all(judge["is_offline"] for judge in scores["judges"].values()):
        return (
            "Not said by any of this: how good the answers are for a clinician. The grades come from rules "
            "that compare words."
        )
    return (
        "Not said by any of this: how clinicians would grade. A model's grades stand in for theirs only as "
        "far as the two have been found to agree."
    )
