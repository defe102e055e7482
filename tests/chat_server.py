"""A chat endpoint that says what a test wants, over real HTTP, in a thread."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web

Reply = str | tuple[str, str] | int
"""A text, a text with its finish_reason, or an HTTP status."""
USAGE = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}


def prompt_in(body: dict[str, Any]) -> str:
    """The text of the last turn."""
    return str(body["messages"][-1]["content"])


@contextmanager
def serving_chat(answer: Callable[[dict[str, Any]], Reply], model: str = "test") -> Iterator[str]:
    """Serves `answer(body)` and yields the base_url; `model` is what /v1/models names."""
    loop, stopping, listening = asyncio.new_event_loop(), asyncio.Event(), threading.Event()
    port: list[int] = []

    async def complete(request: web.Request) -> web.Response:
        body = await request.json()
        reply = answer(body)
        if isinstance(reply, int):
            return web.json_response({"error": {"message": "as told", "code": "as_told"}}, status=reply)
        text, reason = reply if isinstance(reply, tuple) else (reply, "stop")
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
        about = {"id": "x", "object": "chat.completion", "created": 0, "model": body["model"]}
        return web.json_response(about | {"choices": [choice], "usage": USAGE})

    async def list_models(_request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": model, "object": "model"}]})

    async def serve() -> None:
        application = web.Application(client_max_size=1 << 24)
        application.router.add_post("/v1/chat/completions", complete)
        application.router.add_get("/v1/models", list_models)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.2)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port.append(runner.addresses[0][1])
        listening.set()
        await stopping.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert listening.wait(10), "the test's server did not start"
    try:
        yield f"http://127.0.0.1:{port[0]}/v1"
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join(10)
        loop.close()
