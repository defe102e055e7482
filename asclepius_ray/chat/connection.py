"""The official client set up for one endpoint, and what its errors say to the user.

No message holds the key, the request's text or the server's words.
"""

import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import httpx2
import openai

from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.chat.replies import Refusal, read_refusal
from asclepius_ray.chat.retry_after import retry_after_seconds

NO_KEY = "no-key"
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


def open_client(endpoint: Endpoint, max_in_flight: int) -> openai.AsyncOpenAI:
    """A client without retries and clocks of its own: those are ours, so that no 429 goes unseen."""
    # aiohttp takes 0 for "no limit" and None for its own 100.
    limits = httpx2.Limits(max_connections=max_in_flight, max_keepalive_connections=max_in_flight or None)
    http_client = openai.DefaultAioHttpClient(
        limits=limits,
        timeout=None,
        # A redirect could carry notes to a host that nobody allowed.
        follow_redirects=False,
        trust_env=endpoint.may_use_proxy,
        # SSL_CERT_FILE counts without a proxy too.
        verify=httpx2.create_ssl_context(),
    )
    return openai.AsyncOpenAI(
        base_url=endpoint.base_url,
        # An empty key would make the client send OPENAI_API_KEY to whatever host this is.
        api_key=endpoint.api_key or NO_KEY,
        organization="",
        project="",
        default_headers=endpoint.headers,
        max_retries=0,
        timeout=None,
        http_client=http_client,
    )


def read_error_status(error: openai.APIStatusError, sent_parameters: set[str]) -> ErrorStatus:
    refusal, parameter = read_refusal(error.status_code, error.body, sent_parameters)
    wait = retry_after_seconds(error.response.headers, datetime.now(UTC))
    return ErrorStatus(error.status_code, refusal, parameter, wait, rate_headers(error.response.headers))


def rate_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers about rates, by their names in lower case; nothing else of a reply's head is kept."""
    return {name.lower(): value for name, value in headers.items() if "ratelimit" in name.lower()}


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
        case Refusal.BAD_PARAMETER | Refusal.RENAME_MAX_TOKENS:
            return (
                f"{host} does not accept the parameter {error.parameter!r} as it is set (HTTP {status}) for "
                f"the model {endpoint.model!r}; change it under `sampling` or `extra_body`"
            )
    return f"{host} answers with HTTP {status}, which no chat endpoint does; check base_url"


def explain_connection(endpoint: Endpoint, error: BaseException) -> str:
    """Why the endpoint cannot be reached, from the errors behind the client's own."""
    cause: BaseException | None = error
    why = "the connection broke"
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
