"""Bytes of a body → a checked model, or an ApiError that names the first parameter that is wrong.

What is not supported is refused by name, never ignored; no error repeats a value that was sent.
"""

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails, from_json

from asclepius_ray.serving.surface.api_errors import ApiError, invalid_value

MOST_PROBLEMS = 1_000
_FIELD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")
_TAG = re.compile(r"<\w+>")


class Body(BaseModel):
    """A JSON object of a request."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, protected_namespaces=(), use_attribute_docstrings=True
    )


BodyKind = TypeVar("BodyKind", bound=Body)


def parse_object(raw: bytes) -> dict[str, Any]:
    # Refuses NaN, half of a surrogate pair and endless nesting too; the json module takes all three.
    try:
        values = from_json(raw, allow_inf_nan=False)
    except ValueError:
        raise ApiError(400, "invalid_json", "The request's body is not valid JSON.") from None
    if not isinstance(values, dict):
        raise ApiError(400, "invalid_json", "The request's body must be a JSON object.")
    return values


def without_neutral(values: dict[str, Any], neutral: Mapping[str, tuple[object, ...]]) -> dict[str, Any]:
    """The values without those that change nothing; an ApiError names one that would change something."""
    for name, harmless in neutral.items():
        if name in values and not _is_one_of(values[name], harmless):
            raise ApiError(400, "unsupported_parameter", f"This model does not support {name}.", name)
    return {name: value for name, value in values.items() if name not in neutral}


def check_body(kind: type[BodyKind], values: object) -> BodyKind:
    """The checked body; `values` is a JSON value."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        # All of them are written out for the first one, which takes seconds where they are a million.
        if error.error_count() > MOST_PROBLEMS:
            raise invalid_value(None, f"The body has more than {MOST_PROBLEMS} errors.") from None
        problems = error.errors(include_url=False, include_input=False)
    raise _describe(problems[0])


def _is_one_of(value: object, harmless: tuple[object, ...]) -> bool:
    if value is None:
        return True
    # In Python True equals 1, in JSON it does not.
    return any(value == known and isinstance(value, bool) == isinstance(known, bool) for known in harmless)


def _describe(problem: ErrorDetails) -> ApiError:
    """pydantic's own message may hold the value that was sent, so ours is made from its type alone."""
    param = _path(problem["loc"])
    kind = problem["type"]
    if kind == "extra_forbidden":
        return ApiError(400, "unknown_parameter", f"Unknown or unsupported parameter: {param}.", param)
    if kind == "missing":
        return ApiError(400, "missing_required_parameter", f"Missing required parameter: {param}.", param)
    if kind == "literal_error":
        return invalid_value(param, f"{param} must be one of {problem['ctx']['expected']}.")
    limits = {name: value for name, value in problem.get("ctx", {}).items() if _is_limit(name, value)}
    if limits:
        wanted = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in limits.items())
        return invalid_value(param, f"{param} is out of range ({wanted}).")
    return ApiError(
        400, "invalid_type", f"{param or 'This'} is not of the right type ({kind}).", param or None
    )


def _is_limit(name: str, value: object) -> bool:
    return name != "actual_length" and isinstance(value, int | float)


def _path(parts: tuple[int | str, ...]) -> str:
    """The path of a field; a name that is no field's name may be text of the user's and is not repeated."""
    shown = [str(part) for part in parts if not _TAG.fullmatch(str(part))]
    return ".".join(part if part.isdigit() or _FIELD_NAME.fullmatch(part) else "(name)" for part in shown)
