"""What an engine's thread delivers and what a reader gets of it."""

import asyncio

from asclepius_ray.serving.engines.engine import EngineError
from asclepius_ray.serving.engines.token_buffer import TokenBuffer


async def read(buffer: TokenBuffer) -> list[int]:
    return [token_id async for chunk in buffer.chunks() for token_id in chunk.ids]


def test_what_comes_behind_a_cancellation_is_not_yielded() -> None:
    async def play() -> None:
        buffer = TokenBuffer(with_logprobs=False)
        buffer.add([1, 2], [])
        buffer.discard()
        buffer.add([3], [])
        assert await read(buffer) == []

    asyncio.run(play())


def test_a_stream_that_was_cancelled_ends_in_peace_whatever_the_engine_says_of_it_then() -> None:
    async def play() -> None:
        buffer = TokenBuffer(with_logprobs=False)
        buffer.discard()
        buffer.fail(EngineError("the engine could not finish this request"))
        assert await read(buffer) == []

    asyncio.run(play())


def test_what_came_before_the_end_is_yielded() -> None:
    async def play() -> None:
        buffer = TokenBuffer(with_logprobs=False)
        buffer.add([1, 2], [])
        buffer.add([3], [])
        buffer.end()
        assert await read(buffer) == [1, 2, 3]

    asyncio.run(play())
