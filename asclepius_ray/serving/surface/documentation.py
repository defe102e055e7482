"""GET /openapi.json, and /docs: the same document as a page that needs nothing from elsewhere."""

import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from asclepius_ray.serving.surface.openapi import REF_TEMPLATE, openapi_document
from asclepius_ray.serving.surface.route import ApiRoute

OPENAPI_PATH, DOCS_PATH = "/openapi.json", "/docs"
_REF_PREFIX = REF_TEMPLATE.format(model="")
# The page has one style of its own and no script.
_HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}


def documentation_routes(routes: Sequence[ApiRoute], model_names: Sequence[str]) -> list[ApiRoute]:
    """The two routes that document the others and themselves."""
    documented: list[ApiRoute] = []

    @cache
    def document() -> dict[str, Any]:
        return openapi_document([*routes, *documented], model_names)

    async def show_document(_: Request) -> Response:
        return JSONResponse(document())

    async def show_page(_: Request) -> Response:
        return HTMLResponse(render_page(document()), headers=_HEADERS)

    documented += [
        ApiRoute("GET", OPENAPI_PATH, "This document", "OpenAPI 3.1, as JSON.", answers=show_document),
        ApiRoute(
            "GET",
            DOCS_PATH,
            "This document as a page",
            "For readers; it loads nothing from elsewhere.",
            answers=show_page,
            content_type="text/html",
        ),
    ]
    return documented


def render_page(document: dict[str, Any]) -> str:
    """The document as HTML: every route with its fields, examples and errors."""
    environment = Environment(
        undefined=StrictUndefined, autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["shown_json"] = lambda value: json.dumps(value, indent=2, ensure_ascii=False)
    environment.filters["shown_type"] = shown_type
    template = files(__package__).joinpath("docs.html.jinja").read_text(encoding="utf-8")
    return environment.from_string(template).render(document=document)


def shown_type(schema: dict[str, Any]) -> str:
    """A JSON schema in a few words: `integer, 1 to 128`, `list of ChatMessage`, `"a" or "b"`."""
    if "$ref" in schema:
        return str(schema["$ref"]).removeprefix(_REF_PREFIX)
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return " or ".join(json.dumps(value) for value in schema["enum"])
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(shown_type(choice) for choice in schema[key])
    kind = str(schema.get("type", "any"))
    if kind == "array":
        kind = f"list of {shown_type(schema.get('items', {}))}"
    return kind + _shown_limits(schema)


def _shown_limits(schema: dict[str, Any]) -> str:
    least = next((schema[key] for key in ("minimum", "minLength", "minItems") if key in schema), None)
    most = next((schema[key] for key in ("maximum", "maxLength", "maxItems") if key in schema), None)
    unit = " characters" if schema.get("type") == "string" else ""
    if least is not None and most is not None:
        return f" ({least} to {most}{unit})"
    if least is not None:
        return f" (at least {least}{unit})"
    return "" if most is None else f" (at most {most}{unit})"
