"""The official client set up for one endpoint, and what its errors say to the user.

No message holds the key, the request's text or the server's words.
"""

import os
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import openai

from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.chat.rate_headers import is_about_rates, read_rate_headers
from asclepius_ray.chat.replies import Refusal, Reply, find_error, read_refusal, read_reply
from asclepius_ray.chat.retry_after import retry_after_seconds
from asclepius_ray.errors import ConfigError

NO_KEY = "no-key"
CA_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""The first that is set counts, as the usual programs have it."""
_TELEMETRY = ("Lang", "Package-Version", "OS", "Arch", "Runtime", "Runtime-Version", "Async")
"""The client tells these of this machine with every call; nobody needs them, and each costs time."""
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
        verify=_ssl_context(),
    )
    return openai.AsyncOpenAI(
        base_url=endpoint.base_url,
        # An empty key would make the client send OPENAI_API_KEY to whatever host this is.
        api_key=endpoint.api_key or NO_KEY,
        organization="",
        project="",
        default_headers=_headers(endpoint),  # type: ignore[arg-type]  # Omit is allowed, says its documentation
        default_query={"api-version": endpoint.api_version} if endpoint.api_version else None,
        max_retries=0,
        timeout=None,
        http_client=http_client,
    )


def _headers(endpoint: Endpoint) -> dict[str, str | openai.Omit]:
    """Those of the run file, and the key where Azure wants it."""
    # The client would send these to whatever host this is; what a run sends stands in its file.
    ambient = [line.partition(":") for line in os.environ.get("OPENAI_CUSTOM_HEADERS", "").split("\n")]
    left_out = [name.strip() for name, colon, _ in ambient if colon]
    left_out += [f"X-Stainless-{name}" for name in _TELEMETRY]
    headers: dict[str, str | openai.Omit] = {name: openai.Omit() for name in left_out}
    if endpoint.api_version:
        if endpoint.api_key:
            headers["api-key"] = endpoint.api_key
    elif "authorization" in {name.lower() for name in headers}:
        headers["Authorization"] = f"Bearer {endpoint.api_key or NO_KEY}"
    given = endpoint.headers
    names = {name.lower() for name in given}
    return {name: value for name, value in headers.items() if name.lower() not in names} | given


def call_options(endpoint: Endpoint) -> openai.RequestOptions:
    """What goes with every call: Azure has its key in a header of its own, and wants none in the usual one.

    The client takes that from a call alone, and refuses to send without a key where it is set up so.
    """
    names = {name.lower() for name in endpoint.headers}
    if endpoint.api_version and "authorization" not in names:
        return {"headers": {"Authorization": openai.Omit()}}
    return {}


def _ssl_context() -> ssl.SSLContext:
    """The machine's authorities, or those that the environment names; a ConfigError if they are no use."""
    for variable in CA_VARIABLES:
        path = os.environ.get(variable)
        if path:
            return _ssl_context_of(variable, path)
    return httpx2.create_ssl_context()


def _ssl_context_of(variable: str, path: str) -> ssl.SSLContext:
    try:
        if Path(path).is_dir():
            return ssl.create_default_context(capath=path)
        return ssl.create_default_context(cafile=path)
    except OSError as error:
        # An SSLError is one too: a file that holds no certificate.
        raise ConfigError(
            f"the environment variable {variable} names the certificates {path}, which cannot be read "
            f"({error.strerror or type(error).__name__}); correct it or unset it"
        ) from None


def read_answer(response: httpx2.Response, sent_parameters: set[str]) -> Reply | ErrorStatus | None:
    """What came with status 200: a completion, an error all the same, or None for neither."""
    hidden = find_error(response.content)
    if hidden is None:
        return read_reply(response.content)
    return _error_status(hidden[0], read_refusal(*hidden, sent_parameters), response.headers)


def read_error_status(error: openai.APIStatusError, sent_parameters: set[str]) -> ErrorStatus:
    status, body = error.status_code, error.body
    return _error_status(status, read_refusal(status, body, sent_parameters), error.response.headers)


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
