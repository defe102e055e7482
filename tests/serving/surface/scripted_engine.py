"""An engine that says what it is told to, for what no model does on demand: to fail, to wait, to lag."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field

from asclepius_ray.serving.engines.engine import EngineError, EngineStats, GenerationRequest, TokenChunk

Script = Callable[[GenerationRequest], AsyncGenerator[TokenChunk, None]]


@dataclass
class ScriptedEngine:
    """Answers each request with its script; knows which requests it was given and which are open."""

    script: Script
    end_token_ids: frozenset[int] = frozenset({1})
    max_context_tokens: int = 2048
    num_embeddings: int = 1000
    has_ended: bool = False
    requests: list[GenerationRequest] = field(default_factory=list)
    running: set[str] = field(default_factory=set)

    async def warm_up(self) -> None:
        pass

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[TokenChunk, None]:
        self.requests.append(request)
        self.running.add(request.request_id)
        try:
            async for chunk in self.script(request):
                yield chunk
        finally:
            self.cancel(request.request_id)

    def cancel(self, request_id: str) -> None:
        self.running.discard(request_id)

    def stats(self) -> EngineStats:
        return EngineStats(len(self.running), 0)

    def check(self) -> None:
        if self.has_ended:
            raise EngineError("the engine has ended; its replica must be started anew")

    def stop(self) -> None:
        self.has_ended = True


def saying(*chunks: list[int], then: str = "") -> Script:
    """These chunks, one after the other; then "wait" for ever or "fail"."""

    async def script(_: GenerationRequest) -> AsyncGenerator[TokenChunk, None]:
        for ids in chunks:
            await asyncio.sleep(0)
            yield TokenChunk(ids)
        if then == "wait":
            await asyncio.Event().wait()
        if then == "fail":
            raise EngineError("the engine could not finish this request")

    return script
