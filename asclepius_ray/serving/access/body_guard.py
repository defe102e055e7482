"""A request's body as it comes in: no larger and no slower than allowed."""

import asyncio

from asclepius_ray.serving.access.asgi import Message, Receive, Scope
from asclepius_ray.serving.surface.api_errors import ApiError

LONGEST_BODY_BYTES = 4 << 20
"""Larger than any context: a token has some four bytes."""
LONGEST_BODY_SECONDS = 30.0
"""For the whole body; 4 MiB in that time are a slow line of 1.1 Mbit/s."""


class BodyGuard:
    """Stands before `receive`; raises an ApiError (413, 408) until the body is whole or an answer began."""

    def __init__(self, scope: Scope, receive: Receive, longest_seconds: float) -> None:
        self._receive = receive
        self._give_up = asyncio.get_running_loop().time() + longest_seconds
        self._longest_seconds = longest_seconds
        self._num_bytes = _announced_bytes(scope)
        self._is_over = False
        self._check_size()
        self._num_bytes = 0

    def end(self) -> None:
        """The answer has begun: nothing of it may be replaced by an error any more."""
        self._is_over = True

    async def __call__(self) -> Message:
        if self._is_over:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._give_up):
                message = await self._receive()
        except TimeoutError:
            if self._is_over:
                return await self._receive()
            raise ApiError(
                408, "request_timeout", f"The body did not arrive within {self._longest_seconds:.0f} s."
            ) from None
        if message["type"] == "http.request":
            self._num_bytes += len(message.get("body", b""))
            self._check_size()
            self._is_over = not message.get("more_body", False)
        return message

    def _check_size(self) -> None:
        if self._num_bytes > LONGEST_BODY_BYTES and not self._is_over:
            raise ApiError(
                413, "request_too_large", f"The body is larger than {LONGEST_BODY_BYTES >> 20} MiB."
            )


def _announced_bytes(scope: Scope) -> int:
    found = next((bytes(value) for name, value in scope["headers"] if name == b"content-length"), b"0")
    # A number of more digits than this is too large, and int() refuses one of thousands.
    return int(found[:20]) if found.isdigit() else 0
