"""Reading one HTTP exchange with a chat endpoint → what it means. Pure: no network, no waiting.

Nothing here repeats the server's words: an error body often echoes the prompt.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum, auto


class FailureReason(StrEnum):
    """Why a request has no usable answer; the codes stand in the ledger and the manifest."""

    TIMEOUT = "timeout"  # no whole reply within timeout_seconds, max_attempts times
    CONNECTION = "connection"  # refused or broken connections, max_attempts times
    SERVER_ERROR = "server_error"  # HTTP 5xx, max_attempts times
    BAD_REQUEST = "bad_request"  # HTTP 400, 413 or 422: asking again would not help
    CONTEXT_TOO_LONG = "context_too_long"  # prompt and max_tokens do not fit the model
    CONTENT_FILTER = "content_filter"  # held back by the provider's filter
    REFUSED = "refused"  # the model used the protocol's own field for refusals
    TRUNCATED = "truncated"  # cut at max_tokens, and again at twice as many
    EMPTY = "empty"  # no text, twice
    MALFORMED = "malformed"  # not a chat completion, twice


class Refusal(Enum):
    """What an HTTP error status asks of the client."""

    WAIT = auto()  # a rate limit: no attempt is consumed
    RETRY_TIMEOUT = auto()
    RETRY_SERVER_ERROR = auto()
    BAD_REQUEST = auto()
    CONTEXT_TOO_LONG = auto()
    CONTENT_FILTER = auto()
    RENAME_MAX_TOKENS = auto()  # newer models want max_completion_tokens
    BAD_PARAMETER = auto()
    NO_QUOTA = auto()
    BAD_KEY = auto()
    NOT_FOUND = auto()
    NO_CHAT_ENDPOINT = auto()


@dataclass(frozen=True)
class Reply:
    """A chat completion's first choice. Tokens are estimated where the server reports none."""

    text: str
    finish_reason: str
    model: str
    prompt_tokens: int | None
    completion_tokens: int | None
    refused: bool


_NO_QUOTA_CODES = {"insufficient_quota", "billing_not_active", "billing_hard_limit_reached"}
_BAD_REQUEST_STATUSES = {400, 413, 422}


def read_reply(body: bytes) -> Reply | None:
    """The completion in a body of status 200; None where it is malformed."""
    try:
        document = json.loads(body)
    except ValueError:
        return None
    choice = _first(document.get("choices")) if isinstance(document, dict) else None
    message = choice.get("message") if choice else None
    if choice is None or not isinstance(message, dict):
        return None
    content = message.get("content")
    if content is not None and not isinstance(content, str):
        return None
    usage = document.get("usage")
    return Reply(
        text=content or "",
        finish_reason=str(choice.get("finish_reason") or "stop"),
        model=str(document.get("model") or ""),
        prompt_tokens=_count(usage, "prompt_tokens"),
        completion_tokens=_count(usage, "completion_tokens"),
        refused=bool(message.get("refusal")) and not content,
    )


def read_refusal(status: int, body: object, sent_parameters: set[str]) -> tuple[Refusal, str]:
    """What a status other than 200 means, and the parameter that it names ("" for none).

    The parameter is one of `sent_parameters`, so it can be shown without repeating the server.
    """
    error = body if isinstance(body, Mapping) else {}
    codes = {str(error.get("code")), str(error.get("type"))}
    if status == 402 or (status in {403, 429} and codes & _NO_QUOTA_CODES):
        return Refusal.NO_QUOTA, ""
    if status in _BAD_REQUEST_STATUSES:
        return _read_bad_request(error, codes, sent_parameters)
    if status >= 500 or status == 409:
        return Refusal.RETRY_SERVER_ERROR, ""
    by_status = {
        401: Refusal.BAD_KEY,
        403: Refusal.BAD_KEY,
        404: Refusal.NOT_FOUND,
        408: Refusal.RETRY_TIMEOUT,
        429: Refusal.WAIT,
    }
    return by_status.get(status, Refusal.NO_CHAT_ENDPOINT), ""


def _read_bad_request(
    error: Mapping[str, object], codes: set[str], sent_parameters: set[str]
) -> tuple[Refusal, str]:
    said = str(error.get("message") or "").lower()
    # vLLM has no code for this; the sentence is the same in all of its versions.
    if "context_length_exceeded" in codes or "maximum context length" in said:
        return Refusal.CONTEXT_TOO_LONG, ""
    if codes & {"content_filter", "content_policy_violation"}:
        return Refusal.CONTENT_FILTER, ""
    parameter = str(error.get("param") or "")
    if parameter == "max_tokens" and parameter in sent_parameters and "unsupported_parameter" in codes:
        return Refusal.RENAME_MAX_TOKENS, parameter
    if parameter in sent_parameters - {"messages"}:
        return Refusal.BAD_PARAMETER, parameter
    return Refusal.BAD_REQUEST, ""


def _first(choices: object) -> dict[str, object] | None:
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return choices[0]
    return None


def _count(usage: object, name: str) -> int | None:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and value >= 0 else None
