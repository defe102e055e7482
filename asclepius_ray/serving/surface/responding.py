"""A planned request → its response: admitted, generated while its client waits, sent whole or in events.

The place of the request is given back in every ending, in the same coroutine that took it.
"""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Send

from asclepius_ray.serving.access.account import Account
from asclepius_ray.serving.admission.ticket import Size, Ticket
from asclepius_ray.serving.engines.engine import EngineError
from asclepius_ray.serving.surface.api_errors import ApiError, deadline_exceeded, engine_unavailable
from asclepius_ray.serving.surface.choice import Choice, Piece, ScoredToken
from asclepius_ray.serving.surface.event_stream import EventStream
from asclepius_ray.serving.surface.generation import Answering, generate
from asclepius_ray.serving.surface.served_model import ServedModel
from asclepius_ray.serving.surface.watch import ClientGoneError, DeadlinePassedError, work_for_client


class Shape(Protocol):
    """How one route writes its answers."""

    def events(self, choice: Choice, piece: Piece) -> bytes:
        """The events of a piece; the last piece of a choice comes with its finish reason."""

    async def closing_events(self) -> bytes: ...

    async def whole(self, pieces: Sequence[Piece]) -> dict[str, Any]:
        """The body of a response that is not streamed, from the whole text of each choice."""


async def admit(answering: Answering, account: Account) -> Ticket:
    """A place for all choices; an ApiError if there is none or the engine answers nothing."""
    check_engine(answering.model)
    return await answering.model.admission.admit(account, size_of(answering))


def check_engine(model: ServedModel) -> None:
    """An ApiError if the engine can answer nothing any more."""
    try:
        model.engine.check()
    except EngineError:
        raise engine_unavailable() from None


def size_of(answering: Answering) -> Size:
    """What admission counts of a request."""
    return Size(
        answering.model.name,
        answering.prompt_tokens,
        answering.answer_tokens,
        len(answering.choices),
        answering.repeated_tokens,
    )


async def respond(answering: Answering, shape: Shape, streamed: bool, request: Request, send: Send) -> None:
    """Answers the request; an ApiError where nothing has been sent yet, else an event that says the error."""
    ticket = await admit(answering, request.state.account)
    outcome, body, failure = "error", None, None
    stream = EventStream(send)
    work = _send_events if streamed else _whole_body
    try:
        body = await work_for_client(
            work(answering, ticket, shape, stream), request.receive, ticket.seconds_left, stream.is_stalled
        )
        outcome = answering.outcome
    except ClientGoneError:
        outcome = "cancelled"
    except asyncio.CancelledError:
        outcome = "cancelled"
        raise
    except DeadlinePassedError:
        outcome, failure = "deadline", deadline_exceeded()
    except EngineError:
        failure = engine_unavailable()
    finally:
        # Before the last bytes are sent: a client that reads nothing would keep the place with them.
        ticket.close(outcome)
    if failure is not None:
        await _fail(stream, failure)
    elif body is not None:
        await JSONResponse(body)(request.scope, request.receive, send)


async def _fail(stream: EventStream, error: ApiError) -> None:
    if not stream.has_begun:
        raise error
    await stream.fail(error)


async def _send_events(answering: Answering, ticket: Ticket, shape: Shape, stream: EventStream) -> None:
    async with aclosing(generate(answering, ticket)) as pieces:
        async for choice, piece in pieces:
            if events := shape.events(choice, piece):
                await stream.write(events)
    await stream.write(await shape.closing_events())
    await stream.close()


async def _whole_body(
    answering: Answering, ticket: Ticket, shape: Shape, _: EventStream
) -> dict[str, Any] | None:
    return await shape.whole(await whole_pieces(answering, ticket))


async def whole_pieces(answering: Answering, ticket: Ticket) -> list[Piece]:
    """The whole text of each choice, in the order of their index."""
    texts: list[list[str]] = [[] for _ in answering.choices]
    tokens: list[list[ScoredToken]] = [[] for _ in answering.choices]
    async with aclosing(generate(answering, ticket)) as pieces:
        async for choice, piece in pieces:
            texts[choice.index].append(piece.text)
            tokens[choice.index] += piece.tokens
    return [Piece("".join(text), scored) for text, scored in zip(texts, tokens, strict=True)]
