"""Three numbers of each text → the perplexities of a set of texts, with intervals over its texts."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from asclepius_ray.errors import EvaluationError

CONFIDENCE = 0.95
RESAMPLES = 2000
_VALUES_AT_ONCE = 2_000_000

Numbers = NDArray[np.float64]


def summarize_texts(name: str, kind: str, scores: Numbers, num_unreadable: int, seed: int) -> dict[str, Any]:
    """One entry of "texts" in the evaluation's "realism".

    `scores`: a row a text of nats, scored tokens and words. A text without a token to score is skipped, as
    are the `num_unreadable` that were empty or not readable; "texts" counts the others. An EvaluationError
    where nats are not numbers.
    """
    measured = scores[scores[:, 1] > 0]
    nats, tokens, words = measured.T
    if num_bad := int((~np.isfinite(nats)).sum()):
        raise EvaluationError(
            f"evaluation.realism: the model gives {num_bad} text(s) of {name!r} a loss that is not a number; "
            "use another model"
        )
    return {
        "name": name,
        "kind": kind,
        "texts": len(measured),
        "skipped": num_unreadable + len(scores) - len(measured),
        "tokens": int(tokens.sum()),
        "words": int(words.sum()),
        "perplexity_token": perplexity(nats, tokens, seed),
        "perplexity_word": perplexity(nats, words, seed),
    }


def perplexity(nats: Numbers, units: Numbers, seed: int) -> dict[str, Any]:
    """exp(all nats / all units) with its percentile bootstrap interval over texts.

    A text is drawn with its nats and its units together, since long texts weigh more than short ones. No
    interval for fewer than two texts; null for what is larger than a number can be.
    """
    num_texts = len(nats)
    summary: dict[str, Any] = {"value": None, "low": None, "high": None, "n": num_texts}
    if num_texts:
        summary["value"] = _exp(nats.sum() / units.sum())
    if num_texts < 2:
        return summary
    rates = nats / units
    if rates.min() == rates.max():  # the bootstrap of a constant has no width
        return summary | {"low": summary["value"], "high": summary["value"]}
    interval = stats.bootstrap(
        (nats, units),
        _rate,
        paired=True,
        n_resamples=RESAMPLES,
        batch=max(1, _VALUES_AT_ONCE // num_texts),
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    # The interval of the logarithm: the exponential keeps the order, and so the percentiles.
    return summary | {"low": _exp(interval.low), "high": _exp(interval.high)}


def _rate(nats: Numbers, units: Numbers, axis: int = -1) -> Any:
    return nats.sum(axis=axis) / units.sum(axis=axis)


def _exp(nats_per_unit: float) -> float | None:
    with np.errstate(over="ignore"):
        value = float(np.exp(nats_per_unit))
    return value if np.isfinite(value) else None
