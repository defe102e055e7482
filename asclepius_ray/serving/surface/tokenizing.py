"""Long texts are tokenized beside the event loop, so that no other stream stands still meanwhile."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

INLINE_CHARACTERS = 8_000
"""About a millisecond; a thread would cost a waiting request more than that where the loop is busy."""

Result = TypeVar("Result")


async def tokenized(num_characters: int, work: Callable[[], Result]) -> Result:
    """Does the work at once where it is short, else in a thread."""
    if num_characters <= INLINE_CHARACTERS:
        return work()
    return await asyncio.to_thread(work)
