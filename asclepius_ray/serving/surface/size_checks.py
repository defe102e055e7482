"""What cannot fit into a context, whatever its words are, is refused before it costs anything to read."""

from collections.abc import Mapping
from typing import Any

from asclepius_ray.serving.surface.api_errors import ApiError
from asclepius_ray.serving.surface.schemas import MOST_PROMPTS

CHARACTERS_A_TOKEN = 32
"""Clinical English has some four to a token, tables and ruled lines up to a dozen. A note is shortened from
up to eight contexts then; what lies beyond costs seconds of a processor to read, and none of it is kept."""


def check_length(param: str, num_characters: int, context_tokens: int) -> None:
    """An ApiError if the text is longer than is worth tokenizing for this context."""
    if num_characters > CHARACTERS_A_TOKEN * context_tokens:
        raise _too_many(param, num_characters, "characters", CHARACTERS_A_TOKEN * context_tokens)


def check_counts(values: Mapping[str, Any], context_tokens: int) -> None:
    """An ApiError if messages, their parts or token ids are too many, before any of them is looked at."""
    messages = _as_list(values.get("messages"))
    _check_count("messages", len(messages), "messages", context_tokens)
    num_parts = sum(
        len(_as_list(message.get("content"))) for message in messages if isinstance(message, dict)
    )
    _check_count("messages", num_parts, "parts", context_tokens)
    prompt = _as_list(values.get("prompt"))
    if prompt and not isinstance(prompt[0], str | list):
        _check_count("prompt", len(prompt), "token ids", context_tokens)
    for ids in prompt[:MOST_PROMPTS]:
        _check_count("prompt", len(_as_list(ids)), "token ids", context_tokens)


def _as_list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _check_count(param: str, count: int, unit: str, context_tokens: int) -> None:
    # Each of them is at least one token.
    if count > context_tokens:
        raise _too_many(param, count, unit, context_tokens)


def _too_many(param: str, found: int, unit: str, most: int) -> ApiError:
    message = f"{param} has {found} {unit}; for this model's context they are at most {most}."
    return ApiError(400, "context_length_exceeded", message, param)
