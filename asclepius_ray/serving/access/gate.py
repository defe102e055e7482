"""What stands before every route: the key, the limit of requests at a time, the size of a body."""

import hashlib
import hmac
import json
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from asclepius_ray.serving.access.account import Account, Caller
from asclepius_ray.serving.surface.api_errors import ApiError

OPEN_PATHS = ("/health/live", "/health/ready")
_BEARER = "bearer "
# A child of Ray Serve's logger: its lines go to the replica's log file, and not to the console.
_audit = logging.getLogger("ray.serve.asclepius.audit")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


def hash_key(api_key: str) -> str:
    """What a replica holds of a key."""
    return hashlib.sha256(api_key.encode()).hexdigest()


class Gate:
    """ASGI middleware: without the key only the health routes answer, not even that a route is unknown.

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
        account = Account(uuid.uuid4().hex, str(scope["path"]), Caller("key"))
        account.deadline = _deadline(scope)
        scope.setdefault("state", {})["account"] = account
        try:
            await self._application(scope, receive, send)
        finally:
            self._num_running -= counts
            if account.model:
                _write_audit_line(account)

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


def _write_audit_line(account: Account) -> None:
    first = account.first_token_seconds
    line = {
        "request": account.request_id,
        "route": account.route,
        "model": account.model,
        "prompt_tokens": account.prompt_tokens,
        "completion_tokens": account.completion_tokens,
        "first_token_ms": None if first is None else round(first * 1000, 1),
        "total_ms": round((time.monotonic() - account.started) * 1000, 1),
        "outcome": account.outcome or "not finished",
    }
    _audit.info("answered %s", json.dumps(line), extra={"log_to_stderr": False})


def _deadline(scope: Scope) -> float | None:
    for name, value in scope["headers"]:
        if name == b"x-request-timeout-seconds" and value.replace(b".", b"", 1).isdigit():
            return time.monotonic() + float(value)
    return None


def _is_health_check(scope: Scope) -> bool:
    path = str(scope["path"]).removeprefix(str(scope.get("root_path", "")).rstrip("/"))
    return scope["method"] in ("GET", "HEAD") and path in OPEN_PATHS


def _sent_key(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"authorization":
            text = bytes(value).decode("latin-1")
            return text[len(_BEARER) :].strip() if text.lower().startswith(_BEARER) else ""
    return ""
