"""The replica's side of a call: its own web application answers, in this process, without a socket."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

from asclepius_ray.serving.access.account import Account
from asclepius_ray.serving.access.asgi import Application, Message, Receive, Scope, Send
from asclepius_ray.serving.front.call import Call, Item, Part, Taken, cost_of
from asclepius_ray.serving.front.carried_figures import CarriedFigures
from asclepius_ray.serving.meters import Meters
from asclepius_ray.serving.surface.api_errors import ApiError

_BODY = "http.response.body"

logger = logging.getLogger(__name__)


class CallBound:
    """ASGI middleware: so many calls are open at a time, for their bodies in memory; the gate's own bound
    stands at the front."""

    def __init__(self, application: Application, most: int, meters: Meters) -> None:
        self._application = application
        self._most = most
        self._meters = meters
        self._num_open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._num_open >= self._most:
            scope["state"]["account"].outcome = "open_requests"
            self._meters.refused("open_requests")
            error = ApiError(
                429,
                "rate_limit_exceeded",
                f"This replica already answers {self._most} requests; try again soon.",
            )
            await error.response()(scope, receive, send)
            return
        self._num_open += 1
        try:
            await self._application(scope, receive, send)
        finally:
            self._num_open -= 1


async def answer_call(
    application: Application, call: Call, figures: CarriedFigures
) -> AsyncGenerator[Item, None]:
    """Yields Taken at once, then the answer's parts as they come; closing or cancelling it ends the work.

    Without a last part (`is_last`) the answer was cut short. Each part carries the `figures` since the last.
    """
    yield Taken()
    account = Account(call.request_id, call.route, call.caller, call.started, call.deadline)
    sent: asyncio.Queue[Message | None] = asyncio.Queue()
    work = asyncio.create_task(_answer(application, _scope(call, account), call.body, sent))
    is_over = False
    try:
        while not is_over:
            messages = await _next_messages(sent)
            is_over = messages[-1] is None
            if came := [message for message in messages if message is not None]:
                yield replace(_joined(came, account), figures=figures.take())
    finally:
        work.cancel()
        [ending] = await asyncio.gather(work, return_exceptions=True)
    if isinstance(ending, Exception):
        # Its message may hold a word of the request.
        logger.error("a call failed (%s)", type(ending).__name__)


async def _answer(
    application: Application, scope: Scope, body: bytes, sent: "asyncio.Queue[Message | None]"
) -> None:
    request: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
    never = asyncio.Event()

    async def receive() -> Message:
        if not request:
            # Who gives the request up cancels the call.
            await never.wait()
        return request.pop()

    try:
        await application(scope, receive, sent.put)
    finally:
        sent.put_nowait(None)


async def _next_messages(sent: "asyncio.Queue[Message | None]") -> list[Message | None]:
    """At least one, and all that have come meanwhile; the last one is None at the end.

    The end of the body is told together with the end of the work, which follows at once: who has read the
    answer to its end leaves, and by then its costs must be known.
    """
    messages = [await sent.get()]
    while not sent.empty() or _ends_body(messages[-1]):
        messages.append(await sent.get())
    return messages


def _ends_body(message: Message | None) -> bool:
    return message is not None and message["type"] == _BODY and not message.get("more_body", False)


def _joined(messages: list[Message], account: Account) -> Part:
    body = b"".join(message.get("body", b"") for message in messages)
    first, is_last = messages[0], _ends_body(messages[-1])
    if first["type"] == _BODY:
        return Part(body, cost_of(account), is_last=is_last)
    headers = tuple((bytes(name), bytes(value)) for name, value in first.get("headers", ()))
    return Part(body, cost_of(account), int(first["status"]), headers, is_last)


def _scope(call: Call, account: Account) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": call.method,
        "scheme": "http",
        "path": call.path,
        "raw_path": call.path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"content-length", str(len(call.body)).encode())],
        "client": None,
        "server": None,
        "state": {"account": account},
    }
