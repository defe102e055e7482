"""The HTTP surface of the front: the same routes as a replica's, whose questions it passes on.

What needs no model it answers itself: the page, the documentation, the names of the models, the probes. It
knows the names from its settings, so that a model without a replica is listed too.
"""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Send

from asclepius_ray.serving.access.account import Account
from asclepius_ray.serving.access.gate import READY_PATH
from asclepius_ray.serving.front.relay import Relay
from asclepius_ray.serving.page.routes import page_routes
from asclepius_ray.serving.surface.api_errors import ApiError
from asclepius_ray.serving.surface.body_checks import parse_object
from asclepius_ray.serving.surface.route import ApiRoute
from asclepius_ray.serving.surface.routes import api_routes
from asclepius_ray.serving.surface.served_model import unknown_model
from asclepius_ray.serving.surface.surface import mount_routes

IsReady = Callable[[], Awaitable[bool]]


def front_surface(
    relays: Mapping[str, Relay],
    is_ready: IsReady,
    middleware: Sequence[Middleware] = (),
    further_routes: Sequence[ApiRoute] = (),
) -> Starlette:
    """The web application over one relay for each name of a model or adapter; several may share one."""
    front = _Front(relays, is_ready)
    routes = [front.own(route) for route in api_routes({}, front.first)]
    return mount_routes([*routes, *further_routes], list(relays), middleware, page_routes())


class _Front:
    def __init__(self, relays: Mapping[str, Relay], is_ready: IsReady) -> None:
        self._relays = relays
        self._is_ready = is_ready
        self._created = int(time.time())

    @property
    def first(self) -> str:
        """The model of a request that names none."""
        return next(iter(self._relays))

    def own(self, route: ApiRoute) -> ApiRoute:
        """The route as the front answers it."""
        if route.streams is not None:
            return replace(route, streams=self._pass_on)
        answers = {
            READY_PATH: self._show_ready,
            "/v1/models": self._list_models,
            "/v1/models/{model:path}": self._show_model,
        }
        return replace(route, answers=answers.get(route.path, route.answers))

    async def _pass_on(self, request: Request, send: Send) -> None:
        account: Account = request.state.account
        body = await request.body()
        named = parse_object(body).get("model")
        # What is no name at all is refused by the model's own checks, in their words.
        name = named if isinstance(named, str) else self.first
        relay = self._relays.get(name)
        if relay is None:
            raise unknown_model(self._relays)
        account.model = name
        await relay.pass_on(body, request, send)

    async def _show_ready(self, _: Request) -> Response:
        if not await self._is_ready():
            raise ApiError(503, "not_ready", "A model is not up yet; try again soon.")
        return JSONResponse({"status": "ready"})

    async def _list_models(self, _: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._card(name) for name in self._relays]})

    async def _show_model(self, request: Request) -> Response:
        name = request.path_params["model"]
        if name not in self._relays:
            raise unknown_model(self._relays)
        return JSONResponse(self._card(name))

    def _card(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._created, "owned_by": "asclepius-ray"}
