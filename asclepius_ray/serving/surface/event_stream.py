"""Server-sent events over plain ASGI: no task and no copy between a piece of text and the socket."""

import asyncio
import contextlib
import json
import time
from typing import Any

from starlette.types import Send

from asclepius_ray.serving.surface.api_errors import ApiError

DONE_EVENT = b"data: [DONE]\n\n"
STALL_SECONDS = 60.0
"""A client that takes nothing for so long is taken for gone."""
_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"cache-control", b"no-cache"),
        # Proxies that collect a response before they pass it on leave this one alone.
        (b"x-accel-buffering", b"no"),
    ],
}

encode_text = json.encoder.encode_basestring_ascii
"""A string as JSON, the encoder's own part for strings."""


class EventStream:
    """A response that begins with its first event: what fails before has a status of its own."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._writing_since = 0.0
        self.has_begun = False

    async def write(self, events: bytes) -> None:
        """Sends events now; waits while the client lags behind."""
        self._writing_since = time.monotonic()
        if not self.has_begun:
            self.has_begun = True
            await self._send(dict(_START))
        await self._send({"type": "http.response.body", "body": events, "more_body": True})
        self._writing_since = 0.0

    async def close(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def fail(self, error: ApiError) -> None:
        """Ends with an event that says the error; a client that takes nothing goes without it."""
        # Nobody looks for a stalled client any more where the work has ended.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STALL_SECONDS):
                await self.write(error_event(error))
                await self.close()

    def is_stalled(self) -> bool:
        """Whether an event waits for its client for too long."""
        return self._writing_since > 0 and time.monotonic() - self._writing_since > STALL_SECONDS


def compact(body: object) -> str:
    """JSON without spaces, as the other routes give it."""
    return json.dumps(body, separators=(",", ":"), allow_nan=False)


def event(body: dict[str, Any]) -> bytes:
    return f"data: {compact(body)}\n\n".encode()


def error_event(error: ApiError) -> bytes:
    return event(error.body)
