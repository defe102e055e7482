"""One route of the surface: where it answers, what answers, and what the OpenAPI page says of it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

Streaming = Callable[[Request, Send], Awaitable[None]]
Whole = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class ApiRoute:
    """A documented route: either `answers` (gives one response) or `streams` (sends by itself)."""

    method: str
    path: str
    summary: str
    description: str
    answers: Whole | None = None
    streams: Streaming | None = None
    request: type[BaseModel] | None = None
    request_examples: Mapping[str, Any] = field(default_factory=dict)
    response: type[BaseModel] | None = None
    response_example: Any = None
    content_type: str = "application/json"
    events: tuple[type[BaseModel], ...] = ()
    """The kinds of server-sent events that it gives where `stream` is true."""
    errors: tuple[int, ...] = ()
    """Statuses of errors beyond those that every route behind the key may give."""
    is_open: bool = False
    """Answers without a key."""

    @property
    def mounted(self) -> Route:
        return _NamedRoute(self.path, self._endpoint(), methods=[self.method])

    def _endpoint(self) -> Any:
        return self.answers if self.streams is None else _Endpoint(self.streams)


class _NamedRoute(Route):
    """Says in the scope which route answers, for what is written down of a request."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = self
        await super().handle(scope, receive, send)


class _Endpoint:
    """An ASGI application: the framework's own response would put tasks between a token and the socket."""

    def __init__(self, streams: Streaming) -> None:
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._streams(Request(scope, receive), send)
