"""HTTP to one endpoint: kept connections, the run file's headers, the environment's proxy and authorities.

It is aiohttp itself and not the official client above it: that one takes most of a call's CPU time
(tests/benchmarks/test_unlimited_teacher.py), sends telemetry, and reads retries, clocks and errors in ways
of its own.
"""

import asyncio
import json
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import httpx2

from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.chat.proxies import proxy_of
from asclepius_ray.errors import ConfigError

NO_KEY = "no-key"
"""Sent where the run has no key, for servers that want the header whatever it holds."""
CA_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""The first that is set counts, as the usual programs have it."""
LONGEST_IDLE_SECONDS = 4.0
"""A call on a connection that the server has just given up is lost and may have been charged; uvicorn, and
so vLLM, gives up idle ones after 5 s, others later."""
BROKEN = (aiohttp.ClientError, OSError)
"""What a call raises where there is no whole reply; a TimeoutError is an OSError too."""


@dataclass(frozen=True)
class HttpReply:
    """A whole reply, whatever its status. The names of the headers are found in any case."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300


class Connection:
    """Calls one endpoint from one event loop; no retries and no clock, so that no 429 goes unseen."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._base_url = endpoint.base_url.rstrip("/")
        self._query = {"api-version": endpoint.api_version} if endpoint.api_version else None
        self._headers = _headers(endpoint)
        self._json_headers = self._headers | {"Content-Type": "application/json"}
        self._ssl_context = _ssl_context()
        self._proxy = proxy_of(self._base_url) if endpoint.may_use_proxy else None
        self._session: aiohttp.ClientSession | None = None

    async def post(self, path: str, body: Mapping[str, object]) -> HttpReply:
        """Sends a body as JSON; raises one of BROKEN where no whole reply comes."""
        # Escapes carry a half surrogate pair, which UTF-8 cannot.
        content = json.dumps(body, separators=(",", ":"), allow_nan=False).encode()
        return await self._call("POST", path, content, self._json_headers)

    async def upload(self, path: str, name: str, content: bytes, fields: Mapping[str, str]) -> HttpReply:
        """Sends a file of JSON lines as a form."""
        form = aiohttp.FormData(dict(fields))
        form.add_field("file", content, filename=name, content_type="application/jsonl")
        return await self._call("POST", path, form)

    async def get(self, path: str) -> HttpReply:
        return await self._call("GET", path)

    async def delete(self, path: str) -> HttpReply:
        return await self._call("DELETE", path)

    async def close(self) -> None:
        """Closes the connections; a call still under way ends as a broken one."""
        if self._session is not None:
            await self._session.close()

    async def _call(
        self,
        method: str,
        path: str,
        data: bytes | aiohttp.FormData | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> HttpReply:
        session = self._session or self._open()
        async with session.request(
            method,
            self._base_url + path,
            data=data,
            # With each call: those of a session would be shown to the proxy too, the key among them.
            headers=headers or self._headers,
            params=self._query,
            proxy=self._proxy,
            # A redirect could carry notes to a host that nobody allowed.
            allow_redirects=False,
        ) as response:
            return HttpReply(response.status, response.headers, await response.read())

    def _open(self) -> aiohttp.ClientSession:
        self._session = aiohttp.ClientSession(
            # The gate alone counts what is in flight.
            connector=aiohttp.TCPConnector(
                limit=0, ssl=self._ssl_context, keepalive_timeout=LONGEST_IDLE_SECONDS
            ),
            cookie_jar=aiohttp.DummyCookieJar(loop=asyncio.get_running_loop()),
            timeout=aiohttp.ClientTimeout(total=None),
            # It would take passwords out of ~/.netrc too.
            trust_env=False,
        )
        return self._session


def _headers(endpoint: Endpoint) -> dict[str, str]:
    """The key where the endpoint looks for it, and over it the headers of the run file."""
    headers = {"Accept": "application/json", "User-Agent": "asclepius-ray"}
    if endpoint.api_version:
        # Azure has its key in a header of its own, and wants none in the usual one.
        if endpoint.api_key:
            headers["api-key"] = endpoint.api_key
    else:
        headers["Authorization"] = f"Bearer {endpoint.api_key or NO_KEY}"
    given = endpoint.headers
    names = {name.lower() for name in given}
    return {name: value for name, value in headers.items() if name.lower() not in names} | given


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
