"""The routes of the web page: `/`, `/page.css` and `/page.js`, open without a key.

The files hold nothing of a model or a patient. The page asks for a key and sends it with each request to
the routes beside it; its addresses are relative, so it works below a prefix too (at `/prefix/`).
"""

from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
PAGE_PATHS = tuple(_FILES)
SECURITY_HEADERS = {
    # What is not named here the page cannot load, ask, embed or be embedded in: a note that holds markup
    # would stay text even if it came to be markup. The icon is a data: image.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Without a check each time, a browser would run an old script against a new server.
    "Cache-Control": "no-cache",
}


def page_routes() -> list[Route]:
    """The three routes; the surface takes them as its undocumented ones."""
    return [_file_route(path, name, content_type) for path, (name, content_type) in _FILES.items()]


def _file_route(path: str, name: str, content_type: str) -> Route:
    content = files(__package__).joinpath(name).read_bytes()

    async def give_file(_: Request) -> Response:
        return Response(content, headers=SECURITY_HEADERS | {"Content-Type": content_type})

    return Route(path, give_file, methods=["GET"])
