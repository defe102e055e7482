"""The HTTP surface of the models of one replica: OpenAI's routes, the clinical ones, and their documentation.

`routes.py` lists them all.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from asclepius_ray.errors import ServingError
from asclepius_ray.serving.engines.engine import EngineError
from asclepius_ray.serving.surface.api_errors import ApiError, engine_unavailable
from asclepius_ray.serving.surface.documentation import documentation_routes
from asclepius_ray.serving.surface.route import ApiRoute
from asclepius_ray.serving.surface.routes import api_routes
from asclepius_ray.serving.surface.served_model import ServedModel


def build_surface(
    models: Mapping[str, ServedModel],
    middleware: Sequence[Middleware] = (),
    further_routes: Sequence[ApiRoute] = (),
    undocumented_routes: Sequence[BaseRoute] = (),
) -> Starlette:
    """The web application; `middleware` stands before every route and gives each request its account.

    `further_routes` (metrics, the page) are documented with the others. The undocumented ones are for
    a page's own files.
    """
    if not models:
        raise ServingError("a surface needs a model to serve; name one")
    routes = [*api_routes(models, next(iter(models))), *further_routes]
    return mount_routes(routes, list(models), middleware, undocumented_routes)


def mount_routes(
    routes: Sequence[ApiRoute],
    model_names: Sequence[str],
    middleware: Sequence[Middleware] = (),
    undocumented_routes: Sequence[BaseRoute] = (),
) -> Starlette:
    """The web application of these routes and of their documentation; every error has the API's shape."""
    mounted = [*routes, *documentation_routes(routes, model_names)]
    application = Starlette(
        routes=[*(route.mounted for route in mounted), *undocumented_routes],
        middleware=list(middleware),
        exception_handlers=_ERROR_HANDLERS,
    )
    # A redirect would repeat the path that was sent.
    application.router.redirect_slashes = False
    return application


async def _on_api_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response()


async def _on_engine_error(_: Request, error: Exception) -> Response:
    return engine_unavailable().response()


async def _on_client_gone(_: Request, error: Exception) -> Response:
    """The body never came whole; nobody reads this."""
    return ApiError(400, "incomplete_request", "The request's body did not come whole.").response()


async def _on_unknown_route(_: Request, error: Exception) -> Response:
    return ApiError(404, "not_found", "There is no such route.").response()


async def _on_wrong_method(_: Request, error: Exception) -> Response:
    response = ApiError(405, "method_not_allowed", "This route does not take this method.").response()
    if isinstance(error, HTTPException) and error.headers:
        response.headers.update(error.headers)
    return response


async def _on_fault(_: Request, error: Exception) -> Response:
    return ApiError(500, "internal_error", "The server failed on this request.").response()


_ERROR_HANDLERS: dict[Any, Any] = {
    ApiError: _on_api_error,
    EngineError: _on_engine_error,
    ClientDisconnect: _on_client_gone,
    404: _on_unknown_route,
    405: _on_wrong_method,
    500: _on_fault,
}
