"""Replies that are no answer: what a status means to the run, and what is said of it to the user.

No message holds the key, the request's text or the server's words.
"""

import json
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import aiohttp

from asclepius_ray.chat.connection import HttpReply
from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.chat.rate_headers import is_about_rates, read_rate_headers
from asclepius_ray.chat.replies import Refusal, Reply, find_error, read_refusal, read_reply
from asclepius_ray.chat.retry_after import retry_after_seconds

NO_QUOTA_TEXT = "says that the account has no quota left; top it up, then run again"


@dataclass(frozen=True)
class ErrorStatus:
    """An exchange that ended in an HTTP status other than 200, as far as it may be kept."""

    status: int
    refusal: Refusal
    parameter: str
    wait_seconds: float | None
    headers: Mapping[str, str] = field(default_factory=dict)
    """Those about rates alone."""


def read_answer(reply: HttpReply, sent_parameters: set[str]) -> Reply | ErrorStatus | None:
    """What came with status 200: a completion, an error all the same, or None for neither."""
    hidden = find_error(reply.content)
    if hidden is None:
        return read_reply(reply.content)
    return _error_status(hidden[0], read_refusal(*hidden, sent_parameters), reply.headers)


def read_error_status(reply: HttpReply, sent_parameters: set[str]) -> ErrorStatus:
    try:
        body = json.loads(reply.content)
    except (ValueError, RecursionError):
        body = reply.content.decode("utf-8", "replace")
    return _error_status(reply.status, read_refusal(reply.status, body, sent_parameters), reply.headers)


def _error_status(status: int, read: tuple[Refusal, str], headers: Mapping[str, str]) -> ErrorStatus:
    refusal, parameter = read
    told, wait = rate_headers(headers), retry_after_seconds(headers, datetime.now(UTC))
    if wait is None and refusal is Refusal.WAIT and (limits := read_rate_headers(told)) is not None:
        wait = limits.wait_seconds
    return ErrorStatus(status, refusal, parameter, wait, told)


def rate_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers about rates, by their names in lower case; nothing else of a reply's head is kept."""
    return {name.lower(): value for name, value in headers.items() if is_about_rates(name)}


def explain_status(endpoint: Endpoint, error: ErrorStatus) -> str:
    """The EndpointError's message for a status that no row is to blame for."""
    host, status = endpoint.host, error.status
    match error.refusal:
        case Refusal.BAD_KEY:
            return (
                f"{host} refuses the API key (HTTP {status}); put a valid key into the environment variable "
                "that api_key_env names"
            )
        case Refusal.NO_QUOTA:
            return f"{host} {NO_QUOTA_TEXT} (HTTP {status})"
        case Refusal.NOT_FOUND:
            return (
                f"{host} has no model {endpoint.model!r} at this address (HTTP {status}); check `model`, and "
                "that base_url ends as the provider says, mostly in /v1"
            )
        case Refusal.BAD_PARAMETER | Refusal.RENAME_MAX_TOKENS | Refusal.DROP_TEMPERATURE:
            return (
                f"{host} does not accept the parameter {error.parameter!r} as it is set (HTTP {status}) for "
                f"the model {endpoint.model!r}; change it under `sampling` or `extra_body`"
            )
    return f"{host} answers with HTTP {status}, which no chat endpoint does; check base_url"


def explain_connection(endpoint: Endpoint, error: BaseException) -> str:
    """Why the endpoint cannot be reached, from the errors behind the client's own."""
    cause: BaseException | None = error
    why = "the connection broke"
    if isinstance(error, aiohttp.ClientProxyConnectionError | aiohttp.ClientHttpProxyError):
        return (
            f"the chat endpoint at {endpoint.host} cannot be reached: the proxy that the environment names "
            "does not let us through; correct HTTPS_PROXY or HTTP_PROXY, or name the host in NO_PROXY"
        )
    while cause is not None:
        if isinstance(cause, socket.gaierror):
            why = "the host name is not known"
        elif isinstance(cause, ConnectionRefusedError):
            why = "nothing listens there"
        elif isinstance(cause, ssl.SSLError):
            why = "its certificate is not accepted, or it does not speak https"
        elif isinstance(cause, TimeoutError):
            why = "it does not answer in time"
        cause = cause.__cause__ or cause.__context__
    return (
        f"the chat endpoint at {endpoint.host} cannot be reached: {why}; check base_url, that the server is "
        "running, and that this machine may connect to it"
    )
