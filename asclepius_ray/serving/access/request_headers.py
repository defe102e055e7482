"""What the gate reads from a request's headers: its key, its id, how long its client waits."""

import math
import re
import uuid

from asclepius_ray.serving.access.asgi import Headers
from asclepius_ray.serving.surface.api_errors import ApiError

REQUEST_ID = b"x-request-id"
TIMEOUT = b"x-request-timeout-seconds"
DISCONNECT_DISABLED = b"x-request-disconnect-disabled"
# Ray Serve reads the same header and, when the time is over, answers 408 in plain text or cuts the stream.
# Its clock starts before ours: what we do at the end of the time must come first.
MARGIN_SHARE, LARGEST_MARGIN_SECONDS = 0.1, 1.0
_SANE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_BEARER = "bearer "


def sent_key(headers: Headers) -> str:
    """The key of `Authorization: Bearer KEY`; empty without it, or where it is said twice."""
    found = [value for name, value in headers if name == b"authorization"]
    if len(found) != 1:
        return ""
    text = bytes(found[0]).decode("latin-1")
    return text[len(_BEARER) :].strip() if text.lower().startswith(_BEARER) else ""


def request_id(headers: Headers) -> str:
    """The client's id where it looks like one, else a new one: it goes into logs."""
    sent = _value(headers, REQUEST_ID)
    return sent if sent is not None and _SANE_ID.fullmatch(sent) else uuid.uuid4().hex


def seconds_to_answer(headers: Headers) -> float | None:
    """How long from now on an answer is of use; None where the client does not say. An ApiError (400)
    for what is no positive number of seconds.
    """
    sent = _value(headers, TIMEOUT)
    if sent is None:
        return None
    try:
        seconds = float(sent)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        raise ApiError(
            400, "invalid_value", "The header x-request-timeout-seconds takes a positive number of seconds."
        )
    return seconds - min(MARGIN_SHARE * seconds, LARGEST_MARGIN_SECONDS)


def check_disconnect_header(headers: Headers) -> None:
    """An ApiError where the client asks Ray Serve to let its request go on after it has gone away."""
    if _value(headers, DISCONNECT_DISABLED) == "?1":
        raise ApiError(
            400,
            "unsupported_parameter",
            "The header x-request-disconnect-disabled is not supported: a request ends with its connection.",
        )


def _value(headers: Headers, wanted: bytes) -> str | None:
    return next((bytes(value).decode("latin-1").strip() for name, value in headers if name == wanted), None)
