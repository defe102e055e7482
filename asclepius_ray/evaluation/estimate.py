"""A test set and the section → calls, tokens and money of the whole evaluation, without asking anybody. Pure.

The texts of the test set are known, so prompts are counted as they will be sent; answers and
a judge's replies are taken as long as they may become, so what is told is the most that it can cost, but for
what is asked again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from asclepius_ray.chat.config import EndpointConfig, default_sampling
from asclepius_ray.chat.endpoint import price_of
from asclepius_ray.chat.prices import CHARACTERS_PER_TOKEN, cost_usd
from asclepius_ray.evaluation.config import JUDGE, EvaluationConfig
from asclepius_ray.evaluation.judging import label_of
from asclepius_ray.prompts.rendering import render_instruction, render_judge_prompt


@dataclass(frozen=True)
class AskedTexts:
    """How long one item's texts are on average, and how many items there are."""

    num_items: float
    note_characters: float
    question_characters: float


@dataclass(frozen=True)
class RoleEstimate:
    """What one model or judge will be asked at most; cost None = no price is given."""

    role: str
    calls: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    hours: float | None
    """At the limits of the run file; None where it sets none."""


def estimate_evaluation(
    texts: AskedTexts, config: EvaluationConfig, judge: EndpointConfig
) -> list[RoleEstimate]:
    """One line for each model that is asked and each judge, in the order of the section."""
    # A table has no answers to the items that are made here.
    num_asked = texts.num_items + config.unanswerable
    asked = [name for name in config.models if name not in config.answer_columns]
    models = [
        estimate_role(
            name,
            config.endpoints.get(name),
            num_asked,
            len(render_instruction("", "")) + texts.note_characters + texts.question_characters,
            config.max_new_tokens,
        )
        for name in asked
    ]
    judges = {JUDGE: judge, **config.judges}
    return [*models, *(_judge_role(name, found, texts, config) for name, found in judges.items())]


def mean_texts(notes: Sequence[str], questions: Sequence[str], num_items: float) -> AskedTexts:
    """The means of a sample, for so many items."""
    return AskedTexts(num_items, sum(map(len, notes)) / len(notes), sum(map(len, questions)) / len(questions))


def _judge_role(
    name: str, endpoint: EndpointConfig, texts: AskedTexts, config: EvaluationConfig
) -> RoleEstimate:
    num_items = texts.num_items + config.unanswerable
    num_models = len(config.models)
    per_prompt = num_models if config.protocol == "together" else 1
    num_calls = num_items * (config.num_orders if config.protocol == "together" else num_models)
    frame = render_judge_prompt("", "", [(label_of(place), "") for place in range(per_prompt)])
    characters = (
        len(frame[0].content)
        + texts.note_characters
        + texts.question_characters
        + per_prompt * config.max_new_tokens * CHARACTERS_PER_TOKEN
    )
    sampling = endpoint.sampling.get("judge", default_sampling("judge"))
    return estimate_role(f"judge {name}", endpoint, num_calls, characters, sampling.max_tokens)


def estimate_role(
    role: str,
    endpoint: EndpointConfig | None,
    num_calls: float,
    prompt_characters: float,
    completion_tokens: float,
) -> RoleEstimate:
    """So many calls with prompts and replies of these mean lengths, at the endpoint's price and limits."""
    calls = round(num_calls)
    prompt_tokens = round(num_calls * prompt_characters / CHARACTERS_PER_TOKEN)
    completions = round(num_calls * completion_tokens)
    price = None if endpoint is None else price_of(endpoint)
    return RoleEstimate(
        role,
        calls,
        prompt_tokens,
        completions,
        cost_usd(price, prompt_tokens, completions),
        _hours(endpoint, calls, prompt_tokens + completions),
    )


def _hours(endpoint: EndpointConfig | None, calls: int, tokens: int) -> float | None:
    if endpoint is None:
        return None
    limits = ((calls, endpoint.requests_per_minute), (tokens, endpoint.tokens_per_minute))
    minutes = [needed / limit for needed, limit in limits if limit]
    return max(minutes) / 60 if minutes else None
