"""The page on a real server: the surface with tiny models on real engines, in a thread of this process."""

import contextlib
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from reciting_model import save_reciting_model
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send
from transformers import AutoTokenizer

from asclepius_ray.serving.access.account import Account, Caller
from asclepius_ray.serving.admission.admission import Admission
from asclepius_ray.serving.admission.ticket import Size
from asclepius_ray.serving.config import ServingConfig
from asclepius_ray.serving.engines.start import start_engine
from asclepius_ray.serving.engines.transformers_engine import TransformersEngine
from asclepius_ray.serving.page.routes import PAGE_PATHS, page_routes
from asclepius_ray.serving.surface.api_errors import ApiError
from asclepius_ray.serving.surface.served_model import ServedModel
from asclepius_ray.serving.surface.surface import build_surface

KEY = "page-key-nothing-secret-0815"
RECITED = [
    "Troponin",
    " was",
    " 2.4",
    " ng/mL",
    " on",
    " arrival",
    ",",
    " and",
    " aspirin",
    " 100",
    " mg",
    " begun",
    ".",
]
MARKUP = ["<img src=x", " onerror='document.title=1'>", "<script>document.title=2</script>", " bold"]
RAMBLED = [f" word{number}" for number in range(20)] + [" so."]
SHORT_CONTEXT_TOKENS, LONG_CONTEXT_TOKENS = 1024, 8192
MOST_RAMBLED_TOKENS = 4000
BUDGET_TOKENS = 100_000


@dataclass
class Server:
    """A running server, and what a test may see and turn behind it."""

    url: str
    models: dict[str, ServedModel]
    keys: set[str] = field(default_factory=lambda: {KEY})

    @contextlib.contextmanager
    def full(self, name: str) -> Iterator[None]:
        """For so long, somebody else has all places of the model."""
        size = Size(name, BUDGET_TOKENS, 0)
        ticket = self.models[name].admission.admit_now(Account("other", "/", Caller("other")), size)
        try:
            yield
        finally:
            ticket.close("stop")

    def engine(self, name: str) -> TransformersEngine:
        engine = self.models[name].engine
        assert isinstance(engine, TransformersEngine)
        return engine

    def wait_until_idle(self, name: str, seconds: float = 60) -> bool:
        deadline = time.monotonic() + seconds
        while self.engine(name).stats().running_requests and time.monotonic() < deadline:
            time.sleep(0.02)
        return self.engine(name).stats().running_requests == 0


class Door:
    """What the gate does for the page: its files are open, everything else needs a key."""

    def __init__(self, application: ASGIApp, keys: set[str]) -> None:
        self._application = application
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"].removeprefix(scope.get("root_path", ""))
            sent = dict(scope["headers"]).get(b"authorization", b"").decode().removeprefix("Bearer ")
            if path not in PAGE_PATHS and sent not in self._keys:
                refusal = ApiError(401, "invalid_api_key", "Send the API key in the header Authorization.")
                await refusal.response()(scope, receive, send)
                return
            scope["state"] = {"account": Account(uuid.uuid4().hex, path, Caller("test"))}
        await self._application(scope, receive, send)


def load_model(folder: Path, name: str, max_new_tokens: int) -> ServedModel:
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    engine = start_engine(ServingConfig(), str(folder), frozenset({tokenizer.eos_token_id}), 1.0, {})
    return ServedModel(name, engine, tokenizer, max_new_tokens, Admission(BUDGET_TOKENS))


def load_rambling_model(folder: Path) -> ServedModel:
    save_reciting_model(folder, RAMBLED, LONG_CONTEXT_TOKENS, ends=False)
    return load_model(folder, "rambles", MOST_RAMBLED_TOKENS)


@contextlib.contextmanager
def serve(*models: ServedModel) -> Iterator[Server]:
    """Serves the models at `/` and below `/prefix/`."""
    server = Server("", {model.name: model for model in models})
    surface = build_surface(
        server.models, [Middleware(Door, keys=server.keys)], undocumented_routes=page_routes()
    )
    outer = Starlette(routes=[Mount("/prefix", app=surface), Mount("/", app=surface)])
    config = uvicorn.Config(outer, host="127.0.0.1", port=0, log_level="warning", lifespan="off")
    runner = uvicorn.Server(config)
    thread = threading.Thread(target=runner.run)
    thread.start()
    try:
        deadline = time.monotonic() + 60
        while not runner.started:
            assert thread.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        server.url = f"http://127.0.0.1:{runner.servers[0].sockets[0].getsockname()[1]}"
        yield server
    finally:
        runner.should_exit = True
        thread.join(timeout=60)
        # Together: an engine takes some seconds to end.
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda model: model.engine.stop(), models))
