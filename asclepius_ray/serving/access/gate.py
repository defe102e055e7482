"""What stands before every route: the key and its scope, the headers, the size and pace of a body.

Open are the static page, liveness and readiness; everything else answers to a key alone, not even that a
route is unknown. Each request gets an account (`request.state.account`), and at its end its audit line.
"""

import asyncio
import re

from starlette.responses import Response

from asclepius_ray.serving.access.access import Access
from asclepius_ray.serving.access.account import Account, Caller
from asclepius_ray.serving.access.asgi import Application as Application
from asclepius_ray.serving.access.asgi import Message
from asclepius_ray.serving.access.asgi import Receive as Receive
from asclepius_ray.serving.access.asgi import Scope as Scope
from asclepius_ray.serving.access.asgi import Send as Send
from asclepius_ray.serving.access.audit import NO_ROUTE
from asclepius_ray.serving.access.body_guard import BodyGuard
from asclepius_ray.serving.access.cross_origin import allowing_headers, preflight_headers
from asclepius_ray.serving.access.key_ring import KeysUnreadable
from asclepius_ray.serving.access.request_headers import (
    check_disconnect_header,
    request_id,
    seconds_to_answer,
    sent_key,
)
from asclepius_ray.serving.meters import Reason
from asclepius_ray.serving.surface.api_errors import NOT_KEPT, ApiError

LIVE_PATH = "/health/live"
READY_PATH = "/health/ready"
METRICS_PATH = "/metrics"
OPEN_PATHS = frozenset({"/", "/page.css", "/page.js", LIVE_PATH, READY_PATH})
NOBODY = Caller("")
CLIENT_GONE_STATUS = 499
"""Written down for a client that went away before an answer began; nginx's number, as Ray Serve's."""
BODY_STATUSES = (408, 413)
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_POLICY_VIOLATION = 1008
"""The code with which a websocket is closed."""


class Gate:
    """ASGI middleware around all routes."""

    def __init__(self, application: Application, access: Access) -> None:
        self._application = application
        self._access = access
        self._num_open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            self._access.start()
            try:
                await self._application(scope, receive, send)
            finally:
                await self._access.close()
        elif scope["type"] == "http":
            await self._pass(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        account = Account(request_id(scope["headers"]), "", NOBODY)
        scope["state"] = {**scope.get("state", {}), "account": account}
        is_open = scope["method"] in ("GET", "HEAD") and _path(scope) in OPEN_PATHS
        answer = _Answer(send, self._extra_headers(scope, account), is_open)
        try:
            if is_open:
                await self._pass_open(scope, receive, answer)
            else:
                await self._pass_guarded(scope, receive, answer, account)
        except asyncio.CancelledError:
            account.outcome = account.outcome or "cancelled"
            raise
        finally:
            if not is_open:
                self._write_down(scope, account, answer.status)

    async def _pass_open(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        if _path(scope) == READY_PATH and self._access.keys.is_unreadable:
            await _keys_unavailable().response()(scope, receive, answer.send)
        else:
            await self._application(scope, receive, answer.send)

    async def _pass_guarded(
        self, scope: Scope, receive: Receive, answer: "_Answer", account: Account
    ) -> None:
        try:
            response = self._answer_itself(scope, account)
            if response is not None:
                await response(scope, receive, answer.send)
                return
            guard = BodyGuard(scope, receive, self._access.longest_body_seconds)
            answer.on_start = guard.end
            self._num_open += 1
            try:
                await self._application(scope, guard, answer.send)
            finally:
                self._num_open -= 1
        except ApiError as error:
            if answer.status is not None:
                raise
            await error.response()(scope, receive, answer.send)

    def _answer_itself(self, scope: Scope, account: Account) -> Response | None:
        """What needs no route; an ApiError for what may not pass."""
        headers, access = scope["headers"], self._access
        preflight = preflight_headers(scope["method"], headers, access.cors_origins)
        if preflight is not None:
            account.outcome = "preflight"
            response = Response(status_code=204)
            response.raw_headers.extend(preflight)
            return response
        account.caller = self._caller(sent_key(headers), account)
        path = _path(scope)
        if _CONTROL_CHARACTER.search(path):
            # Starlette's routes match before a line break at the end: another path than the one whose scope
            # is looked at here. No route of ours has such a character.
            raise ApiError(404, "not_found", "There is no such route.")
        self._check_scope("metrics" if path == METRICS_PATH else "generate", account)
        try:
            check_disconnect_header(headers)
            seconds = seconds_to_answer(headers)
        except ApiError:
            self._refuse("header", account)
            raise
        if seconds is not None:
            account.deadline = account.started + seconds
        # The figures are wanted most while everything else is refused.
        if self._num_open >= access.max_open_requests and path != METRICS_PATH:
            self._refuse("open_requests", account)
            raise ApiError(
                429,
                "rate_limit_exceeded",
                f"This replica already answers {access.max_open_requests} requests; try again soon.",
            )
        return None

    def _caller(self, api_key: str, account: Account) -> Caller:
        try:
            found = self._access.keys.find(api_key)
        except KeysUnreadable:
            self._refuse("keys_unreadable", account)
            raise _keys_unavailable() from None
        if found is None:
            self._refuse("key", account)
            raise ApiError(
                401, "invalid_api_key", "Send the API key as the header Authorization: Bearer KEY."
            )
        return found

    def _check_scope(self, needed: str, account: Account) -> None:
        if needed not in account.caller.scopes:
            self._refuse("scope", account)
            raise ApiError(403, "missing_scope", f"This key does not have the scope {needed}.")

    def _refuse(self, reason: Reason, account: Account) -> None:
        account.outcome = reason
        self._access.meters.refused(reason)

    def _extra_headers(self, scope: Scope, account: Account) -> list[tuple[bytes, bytes]]:
        headers = allowing_headers(scope["headers"], self._access.cors_origins)
        if not self._access.proxy_echoes_request_id:
            headers.append((b"x-request-id", account.request_id.encode()))
        return headers

    def _write_down(self, scope: Scope, account: Account, status: int | None) -> None:
        route = getattr(scope.get("route"), "path", None)
        account.route = account.route or str(route or "")
        if status is None:
            status = CLIENT_GONE_STATUS if account.outcome == "cancelled" else 500
        if not account.outcome and status in BODY_STATUSES:
            self._refuse("body", account)
        account.outcome = account.outcome or ("answered" if status < 400 else "refused")
        self._access.meters.ended(account.route or NO_ROUTE, status)
        self._access.audit.write(account, status)


class _Answer:
    """Passes an answer on, with the headers that every answer carries."""

    def __init__(self, send: Send, headers: list[tuple[bytes, bytes]], is_open: bool) -> None:
        self._send = send
        self._headers = headers
        self._is_open = is_open
        self.status: int | None = None
        self.on_start = _nothing

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = int(message["status"])
            self.on_start()
            message["headers"] = [*message.get("headers", []), *self._headers]
            self._add_policies(message["headers"])
            if self.status in BODY_STATUSES:
                # Of a body that was not read to its end nothing may be taken for the next request.
                message["headers"].append((b"connection", b"close"))
        await self._send(message)

    def _add_policies(self, headers: list[tuple[bytes, bytes]]) -> None:
        """The page may be kept by a browser as it says itself; an answer is never kept by anybody."""
        policies = {**NOT_KEPT, "Referrer-Policy": "no-referrer"}
        present = {bytes(name).lower() for name, _ in headers}
        for name, value in policies.items():
            raw = name.lower().encode()
            if raw == b"cache-control" and not self._is_open:
                headers[:] = [pair for pair in headers if pair[0].lower() != raw]
            elif raw in present:
                continue
            headers.append((raw, value.encode()))


def _keys_unavailable() -> ApiError:
    return ApiError(503, "keys_unavailable", "The server cannot check keys at the moment; try again soon.")


def _path(scope: Scope) -> str:
    """The path that the routes are compared with, by the same rule as Starlette's."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    if path == root or path.startswith(f"{root}/"):
        return path[len(root) :]
    return path


def _nothing() -> None:
    pass
