"""GET /v1/models and /v1/models/{id}."""

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from asclepius_ray.serving.surface.served_model import ServedModel, describe_model, find_model


async def list_models(models: Mapping[str, ServedModel], _: Request) -> Response:
    return JSONResponse({"object": "list", "data": [describe_model(model) for model in models.values()]})


async def show_model(models: Mapping[str, ServedModel], request: Request) -> Response:
    return JSONResponse(describe_model(find_model(models, request.path_params["model"])))
