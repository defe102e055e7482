"""What stands before every route: the key, the limit of requests at a time, the size of a body."""

import hashlib
import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fastapi import Request

from asclepius_ray.serving.surface.api_errors import ApiError

HEALTH_PATH = "/health"
LONGEST_BODY_BYTES = 4 << 20
_BEARER = "bearer "

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


def hash_key(api_key: str) -> str:
    """What a replica holds of a key."""
    return hashlib.sha256(api_key.encode()).hexdigest()


class Gate:
    """ASGI middleware: without the key nothing but GET /health answers, not even that a route is unknown.

    A POST counts from here to the last byte of its answer, however it ends.
    """

    def __init__(self, application: Application, api_key_sha256: str, max_concurrent_requests: int) -> None:
        self._application = application
        self._api_key_sha256 = api_key_sha256
        self._max_concurrent_requests = max_concurrent_requests
        self._num_running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _is_health_check(scope):
            await self._application(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal.response()(scope, receive, send)
            return
        counts = 1 if scope["method"] == "POST" else 0
        self._num_running += counts
        try:
            await self._application(scope, receive, send)
        finally:
            self._num_running -= counts

    def _refusal(self, scope: Scope) -> ApiError | None:
        if not hmac.compare_digest(hash_key(_sent_key(scope)), self._api_key_sha256):
            return ApiError(
                401, "invalid_api_key", "Send the API key as the header Authorization: Bearer KEY."
            )
        if scope["method"] == "POST" and self._num_running >= self._max_concurrent_requests:
            return ApiError(
                429,
                "rate_limit_exceeded",
                f"This replica already answers {self._max_concurrent_requests} requests; try again soon.",
            )
        return None


async def read_body(request: Request) -> bytes:
    """The whole body, or an ApiError as soon as it is larger than any context could hold."""
    parts: list[bytes] = []
    total = 0
    async for part in request.stream():
        total += len(part)
        if total > LONGEST_BODY_BYTES:
            raise ApiError(
                413, "request_too_large", f"The body is larger than {LONGEST_BODY_BYTES >> 20} MiB."
            )
        parts.append(part)
    return b"".join(parts)


def _is_health_check(scope: Scope) -> bool:
    path = str(scope["path"]).removeprefix(str(scope.get("root_path", "")).rstrip("/"))
    return scope["method"] in ("GET", "HEAD") and path == HEALTH_PATH


def _sent_key(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"authorization":
            text = bytes(value).decode("latin-1")
            return text[len(_BEARER) :].strip() if text.lower().startswith(_BEARER) else ""
    return ""
