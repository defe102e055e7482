"""Tokens on their way from the engine's thread to the event loop that reads them.

A reader that lags gets several together.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from asclepius_ray.serving.engines.engine import EngineError, TokenChunk, TokenLogprob


class TokenBuffer:
    """One request's tokens. Everything but its making runs in the loop that it was made in."""

    def __init__(self, with_logprobs: bool) -> None:
        self.loop = asyncio.get_running_loop()
        self._ready = asyncio.Event()
        self._with_logprobs = with_logprobs
        self._ids: list[int] = []
        self._logprobs: list[TokenLogprob] = []
        self._ended = False
        self._failure: EngineError | None = None

    def add(self, ids: Sequence[int], logprobs: Sequence[TokenLogprob]) -> None:
        if self._ended:
            return  # the engine's thread was on its way while the request was cancelled
        self._ids += ids
        self._logprobs += logprobs
        self._ready.set()

    def end(self) -> None:
        self._ended = True
        self._ready.set()

    def fail(self, error: EngineError) -> None:
        if not self._ended:
            self._failure = error
        self.end()

    def discard(self) -> None:
        """Ends the stream, without what was not read yet."""
        self._ids.clear()
        self._logprobs.clear()
        self.end()

    async def chunks(self) -> AsyncGenerator[TokenChunk, None]:
        """What was added since the last chunk, until the end; raises what it failed with."""
        while True:
            await self._ready.wait()
            self._ready.clear()
            while self._ids:  # more may come while the reader has a chunk
                ids, self._ids = self._ids, []
                logprobs, self._logprobs = self._logprobs, []
                yield TokenChunk(ids, tuple(logprobs) if self._with_logprobs else None)
            if self._ended:
                break
        if self._failure is not None:
            raise self._failure
