"""Reading one HTTP exchange with a chat endpoint → what it means. Pure: no network, no waiting.

Nothing here repeats the server's words: an error body often echoes the prompt.
"""

import json
import re
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
    DROP_TEMPERATURE = auto()  # reasoning models have one temperature and refuse to be told any
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
_LONGEST_SENTENCE_CHARACTERS = 400

# What servers say that have no code for it: vLLM and Mistral, llama.cpp, SGLang, Anthropic, Gemini, TGI.
_TOO_LONG = re.compile(
    r"context (?:length|size|window)|prompt is too long|maximum model length|input token count"
    r"|`inputs` tokens \+"
)
_NO_CREDIT = re.compile(r"credit balance|(?:insufficient|any) credits|insufficient balance")
_NO_KEY = re.compile(r"(?:invalid|incorrect) api key|api key not valid")
_TEMPERATURE = re.compile(r"[\"'`]temperature[\"'`]|\btemperature=|^temperature\b")
_UNSUPPORTED = re.compile(
    r"unsupported|n't support|not support|only the default|only temperature=1|deprecated|only be set to 1"
)

# A gateway's error that came with status 200 and says its status in words alone.
_STATUS_OF_CODE = {
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "insufficient_quota": 429,
    "invalid_api_key": 401,
    "model_not_found": 404,
    "context_length_exceeded": 400,
    "content_filter": 400,
    "invalid_request_error": 400,
}


def read_reply(body: bytes) -> Reply | None:
    """The completion in a body of status 200; None where it is malformed."""
    document = _document(body)
    choice = _first(document.get("choices"))
    message = choice.get("message") if choice else None
    if choice is None or not isinstance(message, dict):
        return None
    text = _text_of(message.get("content"))
    if text is None:
        return None
    usage = document.get("usage")
    return Reply(
        text=text,
        finish_reason=str(choice.get("finish_reason") or "stop"),
        model=str(document.get("model") or ""),
        prompt_tokens=_count(usage, "prompt_tokens"),
        completion_tokens=_count(usage, "completion_tokens"),
        refused=bool(message.get("refusal")) and not text,
    )


def find_error(body: bytes) -> tuple[int, object] | None:
    """The status and the error of a body that came with status 200 and is an error all the same.

    Gateways send the head before they know how the model behind them does.
    """
    if b'"error"' not in body:
        return None
    document = _document(body)
    choice = _first(document.get("choices"))
    if choice is None:
        error = document.get("error")
    else:
        error = choice.get("error") or (choice.get("finish_reason") == "error" and {"code": 502})
    return (_status_of(error), error) if error else None


def read_refusal(status: int, body: object, sent_parameters: set[str]) -> tuple[Refusal, str]:
    """What a status other than 200 means, and the parameter that it names ("" for none).

    `body` is the error object, or what came in its place: a sentence, a list, nothing. The parameter is one
    of `sent_parameters`, so it can be shown without repeating the server.
    """
    error = _error_in(body)
    codes = {str(error.get("code")), str(error.get("type"))}
    said = _sentence(error)
    if status == 402 or (status in {403, 429} and codes & _NO_QUOTA_CODES):
        return Refusal.NO_QUOTA, ""
    if status in {400, 403} and _NO_CREDIT.search(said):
        return Refusal.NO_QUOTA, ""
    if status == 403 and _is_moderation(error):
        return Refusal.CONTENT_FILTER, ""
    if status in _BAD_REQUEST_STATUSES:
        return _read_bad_request(error, codes, said, sent_parameters)
    by_status = {
        401: Refusal.BAD_KEY,
        403: Refusal.BAD_KEY,
        404: Refusal.NOT_FOUND,
        408: Refusal.RETRY_TIMEOUT,
        409: Refusal.RETRY_SERVER_ERROR,
        424: Refusal.RETRY_SERVER_ERROR,  # a model behind the server that failed
        425: Refusal.RETRY_SERVER_ERROR,
        429: Refusal.WAIT,
        498: Refusal.WAIT,  # Groq: no capacity left
        499: Refusal.RETRY_TIMEOUT,
    }
    otherwise = Refusal.RETRY_SERVER_ERROR if status >= 500 else Refusal.NO_CHAT_ENDPOINT
    return by_status.get(status, otherwise), ""


def _read_bad_request(
    error: Mapping[str, object], codes: set[str], said: str, sent_parameters: set[str]
) -> tuple[Refusal, str]:
    if codes & {"context_length_exceeded", "exceed_context_size_error"} or _TOO_LONG.search(said):
        return Refusal.CONTEXT_TOO_LONG, ""
    if codes & {"content_filter", "content_policy_violation"} or _is_moderation(error):
        return Refusal.CONTENT_FILTER, ""
    if _NO_KEY.search(said):
        return Refusal.BAD_KEY, ""
    return _read_bad_parameter(error, codes, said, sent_parameters)


def _read_bad_parameter(
    error: Mapping[str, object], codes: set[str], said: str, sent_parameters: set[str]
) -> tuple[Refusal, str]:
    parameter = str(error.get("param") or "")
    if "max_tokens" in sent_parameters:
        named = parameter == "max_tokens" and "unsupported_parameter" in codes
        if named or ("max_tokens" in said and "max_completion_tokens" in said and "instead" in said):
            return Refusal.RENAME_MAX_TOKENS, "max_tokens"
    if "temperature" in sent_parameters and (parameter == "temperature" or _TEMPERATURE.search(said)):
        unsupported = codes & {"unsupported_parameter", "unsupported_value"} or _UNSUPPORTED.search(said)
        return (Refusal.DROP_TEMPERATURE if unsupported else Refusal.BAD_PARAMETER), "temperature"
    if parameter in sent_parameters - {"messages"}:
        return Refusal.BAD_PARAMETER, parameter
    return Refusal.BAD_REQUEST, ""


def _is_moderation(error: Mapping[str, object]) -> bool:
    """Azure's filter and OpenRouter's moderation: they object to this text, and to nothing else."""
    inner, metadata = error.get("innererror"), error.get("metadata")
    if isinstance(inner, Mapping) and inner.get("code") == "ResponsibleAIPolicyViolation":
        return True
    return isinstance(metadata, Mapping) and bool(metadata.get("reasons"))


def _error_in(body: object) -> Mapping[str, object]:
    """The error object of whatever a server put into its place."""
    if isinstance(body, list) and body:
        body = body[0]
    if isinstance(body, Mapping):
        inner = body.get("error")
        return _error_in(inner) if inner else body
    return {"message": body} if isinstance(body, str) else {}


def _sentence(error: Mapping[str, object]) -> str:
    """How the server's message begins, in lower case; what it echoes of the prompt stands further behind."""
    said = error.get("message") or error.get("detail") or ""
    return str(said)[:_LONGEST_SENTENCE_CHARACTERS].lower()


def _status_of(error: object) -> int:
    """The status that an error without one of its own stands for; 502 where it does not say."""
    found = _error_in(error)
    for value in (found.get("code"), found.get("status"), found.get("type")):
        if str(value) in _STATUS_OF_CODE:
            return _STATUS_OF_CODE[str(value)]
        if isinstance(value, int | str) and re.fullmatch(r"[45]\d\d", str(value)):
            return int(value)
    return 400 if _TOO_LONG.search(_sentence(found)) else 502


def _document(body: bytes) -> dict[str, object]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _first(choices: object) -> dict[str, object] | None:
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return choices[0]
    return None


def _text_of(content: object) -> str | None:
    """A message's text: a string, nothing, or a list of parts. What a model thought aloud is left out."""
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, dict)]
        texts = [part.get("text") for part in parts if part.get("type") == "text"]
        if len(parts) < len(content) or not all(isinstance(text, str) for text in texts):
            return None
        content = "".join(str(text) for text in texts)
    if content is None:
        return ""
    if not isinstance(content, str):
        return None
    _, end, said = content.rpartition("</think>")
    if end:
        return said.lstrip()
    # Cut off before the thinking came to an end: nothing was said.
    return "" if content.lstrip().startswith("<think>") else content


def _count(usage: object, name: str) -> int | None:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and value >= 0 else None
