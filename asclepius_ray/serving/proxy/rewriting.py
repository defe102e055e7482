"""The configuration that Ray Serve writes for HAProxy -> the one that is run. Pure: text in, text out.

Ray 2.60's own opens a statistics page and an exporter to everybody on two fixed ports, tells every caller
the names of the applications, and answers "500 Internal Server Error" as text where a replica is missing.
HAProxy re-reads the file whenever replicas come or go, so each of them passes through here.
"""

import re
from dataclasses import dataclass
from pathlib import PurePath

from asclepius_ray.errors import ServingError

INNER_SOCKET = "inner.sock"
GUARD_SOCKET = "guard.sock"
TLS_BUNDLE = "tls.pem"
FRONTEND = "frontend http_frontend"
_INNER_ID = 700
_SECTION = re.compile(r"^(global|defaults|frontend|backend|listen)\b", re.MULTILINE)
_UNAVAILABLE = (
    503,
    "Service Unavailable",
    "engine_unavailable",
    "No replica can answer now; try again soon.",
)
_ERRORS = {
    400: (400, "Bad Request", "bad_request", "This is not a request of HTTP that can be read."),
    408: (408, "Request Timeout", "request_timeout", "The request did not arrive in time."),
    500: (500, "Internal Server Error", "internal_error", "The server failed on this request."),
    502: _UNAVAILABLE,
    503: _UNAVAILABLE,
    504: _UNAVAILABLE,
}
"""What HAProxy would answer as text -> status, phrase, code and message of what is answered."""
_SANE_ID = "[A-Za-z0-9][A-Za-z0-9._:-]{0,127}"
"""What the gate takes for a request's id: Ray Serve puts it on the answer, and on records of its logs."""
_TRACE_PARENT = "[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}"
_PRINTABLE = "[ -~]*"
_UNREAD_HEADERS = ("x[-_]session[-_]id", "serve[-_]multiplexed[-_]model[-_]id", "tracestate")
"""Patterns of what Ray Serve would hand to its logs and traces, and nothing here asks for."""


@dataclass(frozen=True)
class Outside:
    """What the network sees."""

    bind: str = ""
    """HOST:PORT of the open side; empty = where Ray Serve told HAProxy to listen."""
    is_encrypted: bool = False
    """Whether the folder holds the certificate and its key (`TLS_BUNDLE`, and the same with `.key`)."""


def rewrite(text: str, folder: PurePath, outside: Outside) -> str:
    """The same routing with nothing else open, errors as JSON, and event streams led through the guard.

    `folder` holds the sockets and pages. Raises ServingError where the text is not as Ray 2.60 writes it.
    """
    sections = _sections(text)
    if not any(section.startswith(FRONTEND) for section in sections):
        raise ServingError(f"HAProxy's configuration has no section {FRONTEND!r}: this is not Ray 2.60's")
    kept = [
        _rewrite_section(section, folder, outside)
        for section in sections
        if not section.startswith(("frontend prometheus", "listen stats"))
    ]
    return "".join([*kept, _guard_backend(folder)])


def error_pages() -> dict[str, bytes]:
    """File name -> what HAProxy answers by itself, whole HTTP messages in OpenAI's shape."""
    return {f"{status}.http": _page(*answer) for status, answer in _ERRORS.items()}


def _page(status: int, phrase: str, code: str, message: str) -> bytes:
    body = _error_body(status, code, message)
    retry = "Retry-After: 1\r\n" if status == 503 else ""
    head = (
        f"HTTP/1.1 {status} {phrase}\r\nContent-Type: application/json\r\n{retry}Cache-Control: no-cache\r\n"
    )
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


def _error_body(status: int, code: str, message: str) -> str:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return f'{{"error": {{"message": "{message}", "type": "{kind}", "param": null, "code": "{code}"}}}}'


def _sections(text: str) -> list[str]:
    starts = [found.start() for found in _SECTION.finditer(text)]
    return [text[start:end] for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]


def _rewrite_section(section: str, folder: PurePath, outside: Outside) -> str:
    kind = section.split(None, 2)
    match kind[:2]:
        case ["global", *_]:
            return _closed_global(section)
        case ["defaults", *_]:
            return _defaults(section, folder)
        case ["frontend", "http_frontend"]:
            return _frontend(section, folder, outside)
        case ["backend", "default_backend"]:
            return _default_backend()
        case ["backend", _]:
            # The spare server is Serve's own proxy: it would hold requests without looking at a key.
            return re.sub(r"^    server \S+ \S+ check backup\n", "", section, flags=re.MULTILINE)
    return section


def _closed_global(section: str) -> str:
    section = re.sub(r"^    log .*\n", "", section, flags=re.MULTILINE)
    return _replace(section, r"mode 666 level admin", "mode 600 level admin")


def _defaults(section: str, folder: PurePath) -> str:
    section = re.sub(r"^    (errorfile \d+ .*|option log-health-checks)\n", "", section, flags=re.MULTILINE)
    pages = "".join(f"    errorfile {status} {folder}/{status}.http\n" for status in _ERRORS)
    # A node that falls silent ends its streams after 25 s; without it they would stay open for ever.
    probes = "    option srvtcpka\n    srvtcpka-idle 10s\n    srvtcpka-intvl 5s\n    srvtcpka-cnt 3\n"
    return section.rstrip("\n") + "\n" + pages + probes


def _frontend(section: str, folder: PurePath, outside: Outside) -> str:
    found = re.search(r"^    bind (\S+)\n", section, re.MULTILINE)
    if found is None:
        raise ServingError("HAProxy's configuration does not say where to listen: this is not Ray 2.60's")
    tls = f" ssl crt {folder}/{TLS_BUNDLE} alpn h2,http/1.1" if outside.is_encrypted else ""
    binds = (
        f"    bind {outside.bind or found[1]}{tls}\n"
        f"    bind unix@{folder}/{INNER_SOCKET} id {_INNER_ID} mode 600\n"
    )
    from_outside = f"METH_POST !{{ so_id {_INNER_ID} }}"
    guarded = f"    use_backend asclepius_guard if {from_outside} {{ nbsrv(asclepius_guard) gt 0 }}\n"
    section = section[: found.start()] + binds + _header_rules() + section[found.end() :]
    rules = re.search(r"^    (use_backend|default_backend) ", section, re.MULTILINE)
    end = rules.start() if rules else len(section)
    section = section[:end] + guarded + section[end:]
    # Liveness stays open; the names of the applications do not.
    routes = _error_body(404, "not_found", "There is no such route.").replace('"', '\\"')
    return _replace(
        section,
        r"^    http-request return status \d+ content-type \S+ string \".*\" if routes$",
        f'    http-request return status 404 content-type application/json string "{routes}" if routes',
    )


def _header_rules() -> str:
    """Lets no free text into the headers that Ray Serve reads before the gate does.

    It takes any text for an id, and answers 500 to bytes that are not UTF-8.
    """
    unread = "".join(f"    http-request del-header '^{pattern}$' -m reg\n" for pattern in _UNREAD_HEADERS)
    # An id that is none is taken away: Serve gives a new one, which the answer and the audit line carry.
    rules = [
        ("del-header x-request-id", "x-request-id", _SANE_ID),
        ("del-header traceparent", "traceparent", _TRACE_PARENT),
        ("del-header x-request-disconnect-disabled", "x-request-disconnect-disabled", _PRINTABLE),
        # Not taken away: the gate says what is wrong with it.
        ("set-header x-request-timeout-seconds unreadable", "x-request-timeout-seconds", _PRINTABLE),
    ]
    return unread + "".join(_unless_one(action, header, pattern) for action, header, pattern in rules)


def _unless_one(action: str, header: str, pattern: str) -> str:
    """Does it to a header that is there, and is not one value of this form."""
    is_there = f"{{ req.fhdr_cnt({header}) gt 0 }}"
    return (
        f"    http-request {action} if {is_there} !{{ req.fhdr({header}) -m reg '^{pattern}$' }}\n"
        f"    http-request {action} if {{ req.fhdr_cnt({header}) gt 1 }}\n"
    )


def _default_backend() -> str:
    """Where no application is up yet, or any more: to be tried again, never an unknown address."""
    body = _error_body(503, *_UNAVAILABLE[2:]).replace('"', '\\"')
    return (
        "backend default_backend\n"
        "    http-request return status 503 content-type application/json "
        f'string "{body}" hdr Retry-After 1\n'
    )


def _guard_backend(folder: PurePath) -> str:
    # One connection, one request: the guard copies bytes, and looks into no more than the answer's frame.
    return (
        "backend asclepius_guard\n"
        "    option http-server-close\n"
        "    http-reuse never\n"
        "    default-server inter 1s fastinter 250ms downinter 250ms fall 2 rise 1\n"
        f"    server guard unix@{folder}/{GUARD_SOCKET} check\n"
    )


def _replace(section: str, pattern: str, by: str) -> str:
    changed, num_found = re.subn(pattern, lambda _: by, section, flags=re.MULTILINE)
    if not num_found:
        raise ServingError(f"HAProxy's configuration holds nothing like {pattern!r}: this is not Ray 2.60's")
    return changed
