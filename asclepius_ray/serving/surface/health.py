"""GET /health/live and /health/ready: open, for the probes of a cluster; nothing but a status."""

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from asclepius_ray.serving.engines.engine import EngineError
from asclepius_ray.serving.surface.api_errors import engine_unavailable
from asclepius_ray.serving.surface.served_model import ServedModel


async def show_live(_: Request) -> Response:
    """The process answers."""
    return JSONResponse({"status": "alive"})


async def show_ready(models: Mapping[str, ServedModel], _: Request) -> Response:
    """Every engine can answer; else a 503."""
    try:
        for model in models.values():
            model.engine.check()
    except EngineError:
        raise engine_unavailable() from None
    return JSONResponse({"status": "ready"})
