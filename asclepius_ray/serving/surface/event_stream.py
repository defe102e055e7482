"""A streamed chat completion: pieces of text → server-sent events in OpenAI's shape."""

import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi.responses import StreamingResponse

from asclepius_ray.serving.access.gate import Receive, Scope, Send
from asclepius_ray.serving.engines.engine import EngineError
from asclepius_ray.serving.surface.api_errors import ApiError
from asclepius_ray.serving.surface.completions import Answer

DONE = "data: [DONE]\n\n"


class EventStreamResponse(StreamingResponse):
    """Closes its source when the client is gone, so that the generation behind it ends at once."""

    def __init__(self, events: AsyncGenerator[str, None]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._events):
            await super().__call__(scope, receive, send)


async def chat_events(
    answer: Answer, pieces: AsyncGenerator[str, None], include_usage: bool
) -> AsyncGenerator[str, None]:
    """The events of one completion, with [DONE] last; an engine that fails gives an error event instead."""
    frame: dict[str, Any] = {
        "id": answer.request.request_id,
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": answer.model,
    }
    if include_usage:
        frame["usage"] = None
    async with aclosing(pieces):
        yield _event(frame | {"choices": [_choice({"role": "assistant", "content": ""})]})
        try:
            async for piece in pieces:
                yield _event(frame | {"choices": [_choice({"content": piece})]})
        except EngineError:
            message = "The model failed while it answered; try again soon."
            yield _event(ApiError(500, "engine_error", message).body)
            return
    yield _event(frame | {"choices": [_choice({}, answer.finish_reason)]})
    if include_usage:
        yield _event(frame | {"choices": [], "usage": answer.usage})
    yield DONE


def _choice(delta: dict[str, str], finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def _event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body)}\n\n"
