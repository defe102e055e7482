"""An open-loop load on a served model, as a process of its own: requests come whether or not answers do.

Prints one JSON object: how each request ended, how long the admitted ones took, tokens of finished ones.
"""

import argparse
import asyncio
import json
import os
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

import aiohttp

PAUSE_SECONDS = 0.2


@dataclass
class Told:
    """What the clients saw."""

    seconds: float = 0.0
    sent: int = 0
    finished: int = 0
    tokens: int = 0
    durations_seconds: list[float] = field(default_factory=list)
    """Of the finished ones, from the sending to the last byte."""
    refused: dict[str, int] = field(default_factory=Counter)
    """Status and code of refusals in the API's shape with a Retry-After."""
    ill_formed: dict[str, int] = field(default_factory=Counter)
    """Whatever ended in another way."""


async def ask(session: aiohttp.ClientSession, url: str, body: dict[str, object], told: Told) -> bool:
    """Whether the request was taken in."""
    begin = time.perf_counter()
    told.sent += 1
    try:
        async with session.post(url, json=body) as response:
            if response.status != 200:
                _count_refusal(told, response.status, dict(response.headers), await response.read())
                return False
            tokens, last = 0, ""
            async for line in response.content:
                if line.startswith(b"data: "):
                    last = line[6:].strip().decode()
                    if last.startswith("{") and (usage := json.loads(last).get("usage")):
                        tokens = int(usage["completion_tokens"])
            if last == "[DONE]" and tokens:
                told.finished += 1
                told.tokens += tokens
                told.durations_seconds.append(time.perf_counter() - begin)
            else:
                told.ill_formed["a stream without its end"] += 1
    except (aiohttp.ClientError, TimeoutError) as error:
        told.ill_formed[type(error).__name__] += 1
    return True


def _count_refusal(told: Told, status: int, headers: dict[str, str], raw: bytes) -> None:
    try:
        error = json.loads(raw)["error"]
        kind = f"{status} {error['code']}"
        is_well_formed = {"message", "type", "param", "code"} <= error.keys() and status in (429, 503)
        is_well_formed &= int(headers["Retry-After"]) >= 1
    except (ValueError, KeyError, TypeError):
        kind, is_well_formed = f"{status} of no shape", False
    (told.refused if is_well_formed else told.ill_formed)[kind] += 1


def _body(arguments: argparse.Namespace, number: int) -> dict[str, object]:
    return {
        "model": arguments.model,
        "messages": [{"role": "user", "content": f"{number} chest pain and dyspnea " * 4}],
        "max_tokens": arguments.max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def open_loop(arguments: argparse.Namespace, session: aiohttp.ClientSession, told: Told) -> None:
    """Poisson arrivals at `rate` a second."""
    chance = random.Random(arguments.seed)
    begin = at = time.perf_counter()
    running: set[asyncio.Task[bool]] = set()
    while at < begin + arguments.seconds:
        await asyncio.sleep(max(0.0, at - time.perf_counter()))
        task = asyncio.create_task(ask(session, arguments.url, _body(arguments, told.sent), told))
        running.add(task)
        task.add_done_callback(running.discard)
        at += chance.expovariate(arguments.rate)
    if running:
        await asyncio.wait(running)
    told.seconds = time.perf_counter() - begin


async def closed_loop(arguments: argparse.Namespace, session: aiohttp.ClientSession, told: Told) -> None:
    """So many clients, each asking again at once: what the server can do at most."""
    begin = time.perf_counter()

    async def client() -> None:
        while time.perf_counter() < begin + arguments.seconds:
            if not await ask(session, arguments.url, _body(arguments, told.sent), told):
                # Refusals asked for without a pause would be a load of their own.
                await asyncio.sleep(PAUSE_SECONDS)

    await asyncio.gather(*(client() for _ in range(arguments.clients)))
    told.seconds = time.perf_counter() - begin


async def run(arguments: argparse.Namespace) -> Told:
    told = Told()
    headers = {"Authorization": f"Bearer {os.environ['SERVING_KEY']}"}
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout) as session:
        await (closed_loop if arguments.clients else open_loop)(arguments, session, told)
    return told


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("model")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--clients", type=int, default=0)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    sys.stdout.write(json.dumps(vars(asyncio.run(run(parser.parse_args())))) + "\n")


if __name__ == "__main__":
    main()
