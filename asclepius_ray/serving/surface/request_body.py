"""The bytes of a request, no more of them than any context could hold."""

from starlette.requests import Request

from asclepius_ray.serving.surface.api_errors import ApiError

LONGEST_BODY_BYTES = 4 << 20


async def read_body(request: Request) -> bytes:
    """The whole body, or an ApiError as soon as it is too large."""
    if _announced_bytes(request) > LONGEST_BODY_BYTES:
        raise _too_large()
    parts: list[bytes] = []
    total = 0
    async for part in request.stream():
        total += len(part)
        if total > LONGEST_BODY_BYTES:
            raise _too_large()
        parts.append(part)
    return b"".join(parts)


def _announced_bytes(request: Request) -> int:
    length = request.headers.get("content-length", "")
    # A number of more digits than this is too large, and int() refuses one of thousands.
    return int(length[:20]) if length.isascii() and length.isdigit() else 0


def _too_large() -> ApiError:
    return ApiError(413, "request_too_large", f"The body is larger than {LONGEST_BODY_BYTES >> 20} MiB.")
