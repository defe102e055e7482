"""The answers to one admitted request: a stream of tokens for each choice → pieces of text, as they come."""

import asyncio
import hashlib
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from asclepius_ray.serving.admission.ticket import Ticket
from asclepius_ray.serving.engines.engine import GenerationRequest
from asclepius_ray.serving.surface.api_errors import context_length_exceeded
from asclepius_ray.serving.surface.choice import Choice, Piece
from asclepius_ray.serving.surface.served_model import ServedModel
from asclepius_ray.serving.surface.text_stream import text_decoding

Progress = tuple[Choice, Piece]
MOST_PIECES_PER_SECOND = 500.0
"""Of all answers of a replica together: a small model makes more tokens, and to send each by itself would
take the time that the engine needs for the next ones. Then several tokens make a piece."""
LONGEST_PAUSE_SECONDS = 0.05
"""Between two pieces of one answer; a model that takes longer for a token is never waited for."""


@dataclass(frozen=True)
class Asked:
    """What a body asks of the engine, beside its prompts."""

    num_choices: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stops: Sequence[str] = ()
    top_logprobs: int | None = None


@dataclass(frozen=True)
class Answering:
    """One request to be generated: all its choices, in the order of their index."""

    model: ServedModel
    choices: Sequence[Choice]
    prompt_tokens: int

    @property
    def answer_tokens(self) -> int:
        """The longest that all choices together may become."""
        return sum(choice.request.max_new_tokens for choice in self.choices)

    @property
    def repeated_tokens(self) -> int:
        """Of prompts that several choices answer, each of which holds them in the engine's cache again."""
        return sum(len(choice.request.prompt_ids) for choice in self.choices) - self.prompt_tokens

    @property
    def usage(self) -> dict[str, int]:
        completion_tokens = sum(choice.completion_tokens for choice in self.choices)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": self.prompt_tokens + completion_tokens,
        }

    @property
    def outcome(self) -> str:
        reasons = {choice.finish_reason for choice in self.choices}
        return "length" if "length" in reasons else "stop"


def plan(
    model: ServedModel, prompts: Sequence[list[int]], answer_tokens: Sequence[int], asked: Asked
) -> Answering:
    """The choices of all prompts: those of the first one come first. `answer_tokens` is per prompt."""
    decode = text_decoding(model.tokenizer)
    base = GenerationRequest(
        request_id="",
        prompt_ids=[],
        max_new_tokens=0,
        temperature=asked.temperature,
        top_p=asked.top_p,
        top_logprobs=asked.top_logprobs,
        adapter=model.adapter,
    )
    choices: list[Choice] = []
    unique = uuid.uuid4().hex
    for prompt, longest in zip(prompts, answer_tokens, strict=True):
        for _ in range(asked.num_choices):
            index = len(choices)
            request = replace(
                base,
                request_id=f"{unique}-{index}",
                prompt_ids=prompt,
                max_new_tokens=longest,
                seed=derive_seed(asked.seed, index),
            )
            choices.append(Choice(index, request, model.engine.end_token_ids, decode, asked.stops))
    return Answering(model, choices, sum(len(prompt) for prompt in prompts))


def derive_seed(seed: int | None, index: int) -> int | None:
    """The seed itself for the first choice, so that it says what n = 1 says; others get their own."""
    if seed is None or index == 0:
        return seed
    digest = hashlib.sha256(f"{seed}/{index}".encode()).digest()
    return int.from_bytes(digest[:8]) >> 1


def room_for_answer(
    model: ServedModel, param: str, prompt_tokens: int, wanted: int | None, default: int
) -> int:
    """How long the answer may be; an ApiError where prompt and answer do not fit into the context."""
    context = model.engine.max_context_tokens
    needed = 1 if wanted is None else wanted
    if prompt_tokens + needed > context:
        raise context_length_exceeded(param, context, prompt_tokens, needed)
    return min(default, context - prompt_tokens) if wanted is None else wanted


async def generate(answering: Answering, ticket: Ticket) -> AsyncGenerator[Progress, None]:
    """Pieces as they come, the last of each choice with its finish reason; closing cancels all."""
    streams = [_pieces(answering.model, choice, ticket) for choice in answering.choices]
    pieces = streams[0] if len(streams) == 1 else _merged(streams)
    async with aclosing(pieces):
        async for piece in pieces:
            yield piece


async def _pieces(model: ServedModel, choice: Choice, ticket: Ticket) -> AsyncGenerator[Progress, None]:
    taken_at = 0.0
    async with aclosing(model.engine.stream(choice.request)) as chunks:
        async for chunk in chunks:
            before = choice.completion_tokens
            piece = choice.take(chunk)
            ticket.took(choice.completion_tokens - before)
            if choice.finish_reason:
                yield choice, _joined(piece, choice.finish())
                return
            if piece.text:
                yield choice, piece
            pause = min(LONGEST_PAUSE_SECONDS, model.admission.num_open / MOST_PIECES_PER_SECOND)
            if (left := taken_at + pause - time.monotonic()) > 0:
                # The engine gathers meanwhile what it makes.
                await asyncio.sleep(left)
            taken_at = time.monotonic()
    yield choice, choice.finish()


def _joined(first: Piece, second: Piece) -> Piece:
    return Piece(first.text + second.text, first.tokens + second.tokens)


async def _merged(streams: Sequence[AsyncGenerator[Progress, None]]) -> AsyncGenerator[Progress, None]:
    """The items of all streams in the order in which they come; each is asked for its next one when taken."""
    waiting = {_next(stream): stream for stream in streams}
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                stream = waiting.pop(task)
                progress = task.result()
                if progress is not None:
                    waiting[_next(stream)] = stream
                    yield progress
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for stream in streams:
            await stream.aclose()


def _next(stream: AsyncGenerator[Progress, None]) -> "asyncio.Task[Progress | None]":
    async def take() -> Progress | None:
        return await anext(stream, None)

    return asyncio.create_task(take())
