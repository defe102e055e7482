"""The least that asks at all: one HTTP session, so many calls in flight, nothing kept and nothing retried."""

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import aiohttp


async def ask_all(session: aiohttp.ClientSession, url: str, prompts: list[str], in_flight: int) -> int:
    """The number of prompts that got an answer."""
    num_answered = 0
    left = iter(prompts)

    async def ask_on(left: Iterator[str]) -> None:
        nonlocal num_answered
        for prompt in left:
            body = {
                "model": "offline-rules",
                "messages": [{"role": "user", "content": prompt}],
                "temperature": 1.0,
                "max_tokens": 1024,
            }
            async with session.post(url, data=json.dumps(body).encode()) as response:
                completion = json.loads(await response.read())
            num_answered += bool(completion["choices"][0]["message"]["content"])

    await asyncio.gather(*(ask_on(left) for _ in range(in_flight)))
    return num_answered


async def run(settings: dict[str, Any]) -> dict[str, Any]:
    with open(settings["prompts"], encoding="utf-8") as stream:  # noqa: PTH123
        prompts = [json.loads(line)["prompt"] for line in stream]
    headers = {"Content-Type": "application/json", "Authorization": "Bearer none"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        begin = time.monotonic()
        url = f"{settings['base_url']}/chat/completions"
        num_answered = await ask_all(session, url, prompts, settings["in_flight"])
        end = time.monotonic()
    return {"begin": begin, "end": end, "num_lost": len(prompts) - num_answered}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(run(json.loads(sys.argv[1])))) + "\n")
