"""The surface over real HTTP in this process: an engine on a tiny model, uvicorn on a free port."""

import asyncio
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
import uvicorn
from served_models import API_KEY, ENGINE, MAX_NEW_TOKENS
from starlette.middleware import Middleware
from starlette.types import ASGIApp
from transformers import AutoTokenizer

from asclepius_ray.serving.access.access import Access
from asclepius_ray.serving.access.gate import Gate
from asclepius_ray.serving.access.key_ring import KeyRing
from asclepius_ray.serving.access.keys import hash_key
from asclepius_ray.serving.admission.admission import Admission
from asclepius_ray.serving.config import ServingConfig
from asclepius_ray.serving.engines.engine import Engine
from asclepius_ray.serving.engines.start import start_engine
from asclepius_ray.serving.page.routes import page_routes
from asclepius_ray.serving.surface.metrics_route import metrics_route
from asclepius_ray.serving.surface.served_model import ServedModel
from asclepius_ray.serving.surface.surface import build_surface
from asclepius_ray.tokens.rendering import end_token_id

BUDGET_TOKENS = 20_000
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
CLINICAL, BATCH = "/v1/clinical/answers", "/v1/clinical/answers/batch"


@dataclass(frozen=True)
class Surface:
    """Where it answers, and what lies behind it."""

    address: str
    models: Mapping[str, ServedModel]
    headers: Mapping[str, str] = field(default_factory=lambda: {"Authorization": f"Bearer {API_KEY}"})

    @property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.address}/v1", api_key=API_KEY, max_retries=0, timeout=60)

    def post(self, path: str, body: object, headers: Mapping[str, str] | None = None) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {**(self.headers if headers is None else headers), "Content-Type": "application/json"}
        return httpx.post(self.address + path, content=content, headers=sent, timeout=60)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.address + path, headers=dict(self.headers), timeout=60)

    def is_idle(self, seconds: float = 20.0) -> bool:
        """Whether, within so many seconds, no stream is open and no place is held."""
        give_up = time.monotonic() + seconds
        while time.monotonic() < give_up:
            if all(
                model.engine.stats().running_requests == 0 and model.admission.held_tokens == 0
                for model in self.models.values()
            ):
                return True
            time.sleep(0.05)
        return False


def serve_model(name: str, folder: Path) -> ServedModel:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    end_ids = frozenset({end_token_id(tokenizer), tokenizer.eos_token_id})
    engine = start_engine(ServingConfig(engine=ENGINE, cache_gib=0.25), str(folder), end_ids, 1.0, {})
    return model_on(name, engine, tokenizer)


def model_on(name: str, engine: Engine, tokenizer: Any, max_new_tokens: int = MAX_NEW_TOKENS) -> ServedModel:
    return ServedModel(name, engine, tokenizer, max_new_tokens, Admission(BUDGET_TOKENS))


def application_for(models: Mapping[str, ServedModel]) -> ASGIApp:
    """The surface behind its gate."""
    access = Access(KeyRing(hash_key(API_KEY)), max_open_requests=1000)
    gate = Middleware(Gate, access=access)
    return build_surface(models, [gate], [metrics_route(access.meters)], page_routes())


@contextmanager
def open_surface(models: Mapping[str, ServedModel]) -> Iterator[Surface]:
    with listen(application_for(models)) as address:
        yield Surface(address, models)


@contextmanager
def listen(application: ASGIApp) -> Iterator[str]:
    """Serves an application from a thread of this process, on a free port."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    # Without a log configuration of its own the server's lines reach the tests that read all records.
    # No access log, as with Ray Serve: its lines would hold the paths that clients make up.
    logging.getLogger("uvicorn.access").disabled = True
    server = uvicorn.Server(uvicorn.Config(application, log_config=None, timeout_graceful_shutdown=5))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()
