"""Bodies of requests, checked field by field: what is not supported is refused by name, never ignored."""

import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, from_json

from asclepius_ray.serving.surface.api_errors import ApiError, invalid_value

# What OpenAI's API knows and this surface does not: allowed only with the value that changes nothing.
NEUTRAL_VALUES: dict[str, tuple[object, ...]] = {
    "n": (1,),
    "seed": (),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none",),
    "parallel_tool_calls": (),
    "store": (False,),
    "user": (),
    "metadata": ({},),
    "service_tier": ("auto", "default"),
    "reasoning_effort": (),
}
_FIELD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())


class ChatMessage(_Body):
    role: Literal["system", "user", "assistant"]
    content: str


class StreamOptions(_Body):
    include_usage: bool = False


class ChatCompletionBody(_Body):
    """The body of POST /v1/chat/completions."""

    model: str
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int | None, Field(ge=1)] = None
    max_completion_tokens: Annotated[int | None, Field(ge=1)] = None
    temperature: Annotated[float | None, Field(ge=0, le=2, allow_inf_nan=False)] = None
    top_p: Annotated[float | None, Field(ge=0, le=1, allow_inf_nan=False)] = None
    stop: str | list[str] | None = None

    @property
    def stops(self) -> list[str]:
        if self.stop is None:
            return []
        return [self.stop] if isinstance(self.stop, str) else self.stop

    @property
    def answer_tokens(self) -> int | None:
        return self.max_tokens if self.max_tokens is not None else self.max_completion_tokens


class ClinicalBody(_Body):
    """The body of POST /v1/clinical/answers."""

    note: Annotated[str, Field(min_length=1)]
    question: Annotated[str, Field(min_length=1)]


BodyKind = TypeVar("BodyKind", bound=_Body)


def parse_chat_body(raw: bytes) -> ChatCompletionBody:
    """The checked body; an ApiError names the first parameter that is wrong."""
    values = _parse_object(raw)
    for name, neutral in NEUTRAL_VALUES.items():
        if name in values and not _is_neutral(values.pop(name), neutral):
            raise ApiError(400, "unsupported_parameter", f"This model does not support {name}.", name)
    body = _validate(ChatCompletionBody, values)
    if body.stream_options is not None and not body.stream:
        raise invalid_value("stream_options", "stream_options is only allowed with stream = true.")
    if body.max_tokens is not None and body.max_completion_tokens is not None:
        raise invalid_value("max_tokens", "Set max_tokens or max_completion_tokens, not both.")
    if len(body.stops) > 4 or not all(body.stops):
        raise invalid_value("stop", "stop takes at most 4 strings, none of them empty.")
    return body


def parse_clinical_body(raw: bytes) -> ClinicalBody:
    return _validate(ClinicalBody, _parse_object(raw))


def _is_neutral(value: object, neutral: tuple[object, ...]) -> bool:
    if value is None:
        return True
    # In Python True equals 1, in JSON it does not.
    return any(value == known and isinstance(value, bool) == isinstance(known, bool) for known in neutral)


def _parse_object(raw: bytes) -> dict[str, Any]:
    # Refuses NaN, half of a surrogate pair and endless nesting too; the json module takes all three.
    try:
        values = from_json(raw, allow_inf_nan=False)
    except ValueError:
        raise ApiError(400, "invalid_json", "The request's body is not valid JSON.") from None
    if not isinstance(values, dict):
        raise ApiError(400, "invalid_json", "The request's body must be a JSON object.")
    return values


def _validate(kind: type[BodyKind], values: dict[str, Any]) -> BodyKind:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
    raise _describe(problems[0])


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
    limits = {name: value for name, value in problem.get("ctx", {}).items() if isinstance(value, int | float)}
    if limits:
        wanted = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in limits.items())
        return invalid_value(param, f"{param} is out of range ({wanted}).")
    return ApiError(400, "invalid_type", f"{param} is not of the right type ({kind}).", param)


def _path(parts: tuple[int | str, ...]) -> str:
    """The path of a field; a name that is no field's name may be text of the user's and is not repeated."""
    shown = [str(part) for part in parts if part not in ("str", "list[str]")]
    return ".".join(part if part.isdigit() or _FIELD_NAME.fullmatch(part) else "(name)" for part in shown)
