"""The routes and the models that check their bodies → the OpenAPI document."""

from collections.abc import Sequence
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from asclepius_ray.serving.surface.response_schemas import ErrorBody
from asclepius_ray.serving.surface.route import ApiRoute

OPENAPI_VERSION = "3.1.0"
REF_TEMPLATE = "#/components/schemas/{model}"
ERROR_REASONS = {
    400: "The request is wrong; `param` names the parameter.",
    401: "The API key is missing, unknown, revoked or expired.",
    403: "The key has no scope for this route.",
    404: "There is no such model.",
    413: "The body is too large.",
    429: "There is no room now, or the key is over its limit; `Retry-After` says when to come again.",
    500: "The server failed.",
    503: "The model cannot answer now; `Retry-After` says when to come again.",
    504: "The client's deadline passed before the answer was finished.",
}
ERRORS_BEHIND_THE_KEY = (401, 403, 429)
END_OF_STREAM = "[DONE]"
TITLE = "asclepius-ray"
DESCRIPTION = (
    "Clinical notes in, answers out; and OpenAI's routes for the same models. "
    "For research, not for clinical decisions. Every error has OpenAI's shape."
)


def openapi_document(routes: Sequence[ApiRoute], model_names: Sequence[str]) -> dict[str, Any]:
    """The document as JSON values; `model` of each body is one of the names."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(_shown_path(route), {})[route.method.lower()] = _operation(route)
    return {
        "openapi": OPENAPI_VERSION,
        "info": {"title": TITLE, "version": version("asclepius-ray"), "description": DESCRIPTION},
        "paths": paths,
        "components": {
            "schemas": _schemas(routes, model_names),
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "Authorization: Bearer KEY"}
            },
        },
        "security": [{"key": []}],
    }


def _shown_path(route: ApiRoute) -> str:
    return route.path.replace(":path}", "}")


def _schemas(routes: Sequence[ApiRoute], model_names: Sequence[str]) -> dict[str, Any]:
    bodies = [route.request for route in routes if route.request is not None]
    every: dict[type[BaseModel], None] = dict.fromkeys(bodies)
    every |= dict.fromkeys(model for route in routes for model in _given_models(route))
    every[ErrorBody] = None
    _, found = models_json_schema([(model, "validation") for model in every], ref_template=REF_TEMPLATE)
    schemas: dict[str, Any] = found["$defs"]
    for body in bodies:
        _name_models(schemas[body.__name__]["properties"]["model"], list(model_names))
    return schemas


def _name_models(schema: dict[str, Any], names: list[str]) -> None:
    for choice in schema.get("anyOf", [schema]):
        if choice.get("type") == "string":
            choice["enum"] = names


def _given_models(route: ApiRoute) -> list[type[BaseModel]]:
    return [*([route.response] if route.response else []), *route.events]


def _operation(route: ApiRoute) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": route.summary,
        "description": route.description,
        "responses": _responses(route),
    }
    if route.is_open:
        operation["security"] = []
    if parameters := _path_parameters(route.path):
        operation["parameters"] = parameters
    if route.request is not None:
        content: dict[str, Any] = {"schema": _reference(route.request)}
        if route.request_examples:
            content["examples"] = {name: {"value": value} for name, value in route.request_examples.items()}
        operation["requestBody"] = {"required": True, "content": {"application/json": content}}
    return operation


def _path_parameters(path: str) -> list[dict[str, Any]]:
    names = [part.strip("{}").partition(":")[0] for part in path.split("/") if part.startswith("{")]
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def _responses(route: ApiRoute) -> dict[str, Any]:
    any_kind = {"type": "object" if route.content_type == "application/json" else "string"}
    content: dict[str, Any] = {"schema": _reference(route.response) if route.response else any_kind}
    if route.response_example is not None:
        content["example"] = route.response_example
    contents = {route.content_type: content}
    if route.events:
        contents["text/event-stream"] = {"schema": _event_schema(route)}
    described: dict[str, Any] = {"200": {"description": "The answer.", "content": contents}}
    behind_key = () if route.is_open else ERRORS_BEHIND_THE_KEY
    for status in sorted({*behind_key, *route.errors}):
        described[str(status)] = _error_response(status)
    return described


def _event_schema(route: ApiRoute) -> dict[str, Any]:
    """Of one event: OpenAPI 3.1 has no words of its own for a stream."""
    kinds: list[type[BaseModel]] = [*route.events, ErrorBody]
    data = {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": {"anyOf": [_reference(kind) for kind in kinds]},
    }
    return {
        "type": "object",
        "description": "One event of the stream.",
        "properties": {"data": {"anyOf": [data, {"const": END_OF_STREAM}]}},
        "required": ["data"],
    }


def _error_response(status: int) -> dict[str, Any]:
    response: dict[str, Any] = {
        "description": f"{HTTPStatus(status).phrase}. {ERROR_REASONS[status]}",
        "content": {"application/json": {"schema": _reference(ErrorBody)}},
    }
    if status in (429, 503):
        response["headers"] = {
            "Retry-After": {"schema": {"type": "integer"}, "description": "Seconds.", "required": True}
        }
    return response


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": REF_TEMPLATE.format(model=model.__name__)}
