"""The body of a request; the guard of the gate refuses one that is too large or too slow."""

from typing import Any

from starlette.requests import Request

from asclepius_ray.serving.surface.body_checks import parse_object


async def read_object(request: Request) -> dict[str, Any]:
    """The JSON object of the body, or an ApiError."""
    # Not in a thread: a parser holds the interpreter's lock to its end (a tenth of a second for 4 MiB), so
    # that no stream would go on beside it. What takes longer comes behind it, and is bounded there.
    return parse_object(await request.body())
