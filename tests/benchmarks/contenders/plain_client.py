"""The bare loop that anybody writes: the official client, so many calls in flight, its own retries."""

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import openai


async def ask_all(client: openai.AsyncOpenAI, prompts: list[str], in_flight: int) -> int:
    """The number of prompts that got an answer."""
    num_answered = 0
    left = iter(prompts)

    async def ask_on(left: Iterator[str]) -> None:
        nonlocal num_answered
        for prompt in left:
            try:
                completion = await client.chat.completions.create(
                    model="offline-rules",
                    messages=[{"role": "user", "content": prompt}],
                    temperature=1.0,
                    max_tokens=1024,
                )
            except openai.APIError:
                continue
            num_answered += bool(completion.choices[0].message.content)

    await asyncio.gather(*(ask_on(left) for _ in range(in_flight)))
    return num_answered


async def run(settings: dict[str, Any]) -> dict[str, Any]:
    with open(settings["prompts"], encoding="utf-8") as stream:  # noqa: PTH123
        prompts = [json.loads(line)["prompt"] for line in stream]
    limits = openai.DefaultAioHttpClient(timeout=120.0) if settings["is_aiohttp"] else None
    client = openai.AsyncOpenAI(
        base_url=settings["base_url"],
        api_key="none",
        max_retries=settings["max_retries"],
        timeout=120.0,
        http_client=limits,
    )
    begin = time.monotonic()
    num_answered = await ask_all(client, prompts, settings["in_flight"])
    end = time.monotonic()
    await client.close()
    return {"begin": begin, "end": end, "num_lost": len(prompts) - num_answered}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(run(json.loads(sys.argv[1])))) + "\n")
