"""A real chat endpoint whose replies a test chooses, and which counts what it is asked at once."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from types import TracebackType

from aiohttp import web

from asclepius_ray.chat.endpoint import Endpoint

NOTE = "Discharge Summary: " + "The patient came with pain and was given aspirin. " * 8
REPLIES = {"note": NOTE, "question": "List the drugs.", "answer": "Aspirin."}


class ScriptedTeacher:
    """`reply(step, prompt)` gives the text of each reply, after `delay_seconds(step, prompt)`."""

    def __init__(
        self,
        reply: Callable[[str, str], str] = lambda step, prompt: REPLIES[step],
        delay_seconds: Callable[[str, str], float] = lambda step, prompt: 0.0,
    ) -> None:
        self.most_at_once = 0
        self.received: Counter[str] = Counter()
        self.base_url = ""
        self._reply = reply
        self._delay_seconds = delay_seconds
        self._at_once = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> "ScriptedTeacher":
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(timeout=30)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(timeout=30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def endpoint(self, max_in_flight: int = 64) -> Endpoint:
        return Endpoint(self.base_url, "scripted", max_in_flight=max_in_flight, timeout_seconds=30.0)

    async def _start(self) -> None:
        application = web.Application(client_max_size=2**24)
        application.router.add_get("/v1/models", self._models)
        application.router.add_post("/v1/chat/completions", self._complete)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.base_url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": []})

    async def _complete(self, request: web.Request) -> web.Response:
        prompt = (await request.json())["messages"][-1]["content"]
        tags = (("note", "<case_report>"), ("question", "<examples>"), ("answer", "<question>"))
        step = next(step for step, tag in tags if tag in prompt)
        self.received[step] += 1
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            await asyncio.sleep(self._delay_seconds(step, prompt))
        finally:
            self._at_once -= 1
        choice = {"index": 0, "finish_reason": "stop"}
        choice["message"] = {"role": "assistant", "content": self._reply(step, prompt)}
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        return web.json_response({"model": "scripted", "choices": [choice], "usage": usage})
