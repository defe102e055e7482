"""A process of its own that asks an OpenAI-compatible address with so many clients, each streaming.

Closed loop: a client asks again when its answer has ended. Prints one JSON object at its end.
"""

import argparse
import asyncio
import json
import os
import secrets
import statistics
import sys
import time
from dataclasses import asdict, dataclass, field

import aiohttp

PROMPT_WORDS = 60


@dataclass
class Load:
    """What the clients saw between the first and the last token that counts."""

    clients: int
    answers: int = 0
    tokens: int = 0
    seconds: float = 0.0
    first_token_seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


async def ask(session: aiohttp.ClientSession, url: str, body: dict[str, object], load: Load) -> None:
    begin = time.perf_counter()
    async with session.post(url, json=body) as response:
        if response.status != 200:
            load.failures.append(f"HTTP status {response.status}")
            await asyncio.sleep(0.1)
            return
        first = None
        async for line in response.content:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            if "error" in event:
                load.failures.append("error event")
                return
            # A server's first event may hold the role alone: the first with text is the first token.
            if first is None and any(each["delta"].get("content") for each in event["choices"]):
                first = time.perf_counter() - begin
                load.first_token_seconds.append(first)
            if event.get("usage"):
                load.tokens += event["usage"]["completion_tokens"]
        load.answers += 1


async def run(arguments: argparse.Namespace) -> Load:
    load = Load(arguments.clients)
    url = f"{arguments.base_url}/chat/completions"
    headers = {"Authorization": f"Bearer {os.environ['SERVING_KEY']}"}
    numbers = iter(range(arguments.answers))
    round_of_load = secrets.token_hex(8)

    async def client(session: aiohttp.ClientSession) -> None:
        for number in numbers:
            # Another beginning for each, in each round: nobody's prefix cache has seen it.
            text = f"{round_of_load} {number} " + " ".join(
                f"word{(number * 31 + i) % 97}" for i in range(PROMPT_WORDS)
            )
            body: dict[str, object] = {
                "model": arguments.model,
                "messages": [{"role": "user", "content": text}],
                "max_tokens": arguments.max_tokens,
                "temperature": 0,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
            await ask(session, url, body, load)

    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=600)
    async with aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout) as session:
        begin = time.perf_counter()
        await asyncio.gather(*(client(session) for _ in range(arguments.clients)))
        load.seconds = time.perf_counter() - begin
    return load


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("base_url")
    parser.add_argument("model")
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--answers", type=int, required=True)
    parser.add_argument("--max-tokens", type=int, default=64)
    load = asyncio.run(run(parser.parse_args()))
    told = asdict(load)
    first = told.pop("first_token_seconds")
    told["first_token_p50_seconds"] = statistics.median(first) if first else None
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
