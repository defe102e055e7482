"""A small web application behind the real gate and the real admission, over real HTTP."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from asclepius_ray.serving.access.access import Access
from asclepius_ray.serving.access.account import Account
from asclepius_ray.serving.access.gate import Gate
from asclepius_ray.serving.access.key_file import KeyFile
from asclepius_ray.serving.access.key_ring import KeyRing
from asclepius_ray.serving.access.keys import hash_key
from asclepius_ray.serving.admission.admission import Admission
from asclepius_ray.serving.admission.ticket import Size
from asclepius_ray.serving.surface.api_errors import ApiError
from asclepius_ray.serving.surface.metrics_route import metrics_route

OPERATOR_KEY = "operator-key-nothing-secret-4711"
CANARY = "zebrafinch-canary"
MODEL = "tiny"


@dataclass
class Gated:
    """A server that runs: where it is, and what it is made of."""

    access: Access
    admission: Admission
    token_seconds: float = 0.0
    url: str = ""
    seen: list[Account] = field(default_factory=list)


def access_of(folder: Path | None = None, **settings: object) -> Access:
    """Keys of a folder beside the operator's."""
    file = KeyFile(str(folder)) if folder is not None else None
    return Access(keys=KeyRing(hash_key(OPERATOR_KEY), file), **settings)  # type: ignore[arg-type]


@contextmanager
def serving(gated: Gated) -> Iterator[Gated]:
    """Serves it in a thread of this process."""
    config = uvicorn.Config(_application(gated), host="127.0.0.1", port=0, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    give_up = time.monotonic() + 60
    while not server.started:
        assert time.monotonic() < give_up
        time.sleep(0.01)
    gated.url = "http://{}:{}".format(*server.servers[0].sockets[0].getsockname()[:2])
    yield gated
    server.should_exit = True
    thread.join(60)


def _application(gated: Gated) -> FastAPI:
    application = FastAPI(openapi_url=None, redirect_slashes=False)
    application.add_middleware(Gate, access=gated.access)
    application.add_exception_handler(ApiError, _on_api_error)

    @application.get("/")
    @application.get("/health/live")
    @application.get("/health/ready")
    async def page() -> Response:
        return Response("page")

    application.router.routes.append(metrics_route(gated.access.meters).mounted)

    @application.get("/v1/models/{name:path}")
    async def show(name: str, request: Request) -> Response:
        gated.seen.append(request.state.account)
        return JSONResponse({})

    @application.post("/v1/echo")
    async def answer(request: Request) -> Response:
        account: Account = request.state.account
        gated.seen.append(account)
        body = await request.body()
        # As many tokens as the body has bytes, and an answer of ten.
        ticket = await gated.admission.admit(account, Size(MODEL, len(body), 10))

        async def pieces() -> AsyncIterator[bytes]:
            outcome = "cancelled"
            try:
                for _ in range(10):
                    await asyncio.sleep(gated.token_seconds)
                    ticket.took(1)
                    yield b"x"
                outcome = "stop"
            finally:
                ticket.close(outcome)

        return StreamingResponse(pieces())

    return application


async def _on_api_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response()
