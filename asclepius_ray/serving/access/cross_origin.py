"""Which pages of other origins a browser may let ask: none, but those that `serving.cors_origins` names.

Credentials in the browser's sense (cookies) are never allowed; a key travels in a header that the page
itself sets.
"""

import re

from asclepius_ray.serving.access.asgi import Headers

ANY_ORIGIN = "*"
_HEADER_NAMES = re.compile(r"[A-Za-z0-9-]+(\s*,\s*[A-Za-z0-9-]+)*")
_METHODS = b"GET, POST"
_EXPOSED = b"X-Request-Id, Retry-After"
_MAX_AGE_SECONDS = b"600"

Pairs = list[tuple[bytes, bytes]]


def is_origin(text: str) -> bool:
    """Whether it is an origin as a browser sends it: a scheme, a host, perhaps a port; or the word *."""
    return text == ANY_ORIGIN or bool(
        re.fullmatch(r"https?://[a-z0-9.-]+(:\d+)?|https?://\[[0-9a-f:]+\](:\d+)?", text)
    )


def allowing_headers(headers: Headers, origins: frozenset[str]) -> Pairs:
    """What an answer carries so that the browser shows it to the page that asked."""
    if not origins:
        return []
    varies = [(b"vary", b"Origin")]
    allowed = _allowed(headers, origins)
    if allowed is None:
        return varies
    return [(b"access-control-allow-origin", allowed), (b"access-control-expose-headers", _EXPOSED), *varies]


def preflight_headers(method: str, headers: Headers, origins: frozenset[str]) -> Pairs | None:
    """The answer to a browser that asks whether it may ask; None where it may not, or asks nothing such."""
    asked = dict(headers)
    if method != "OPTIONS" or b"access-control-request-method" not in asked:
        return None
    if _allowed(headers, origins) is None:
        return None
    wanted = bytes(asked.get(b"access-control-request-headers", b"")).decode("latin-1")
    pairs = [(b"access-control-allow-methods", _METHODS), (b"access-control-max-age", _MAX_AGE_SECONDS)]
    # The official clients send headers of their own beside the key's, more with every version.
    if _HEADER_NAMES.fullmatch(wanted):
        pairs.append((b"access-control-allow-headers", wanted.encode()))
    return pairs


def _allowed(headers: Headers, origins: frozenset[str]) -> bytes | None:
    origin = next((bytes(value) for name, value in headers if name == b"origin"), None)
    if origin is None:
        return None
    if ANY_ORIGIN in origins:
        return b"*"
    return origin if origin.decode("latin-1") in origins else None
