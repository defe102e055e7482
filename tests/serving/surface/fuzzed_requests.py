"""Requests that no client should send, from a seed: bodies, headers, paths, broken connections."""

import asyncio
import contextlib
import copy
import json
import random
import socket
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from served_models import API_KEY
from surfaces import BATCH, CHAT, CLINICAL, COMPLETIONS

CANARY = "zebrafinch-canary"
REQUESTS_AT_A_TIME = 16
LONGEST_ANSWER_SECONDS = 120.0
PATIENCE_SECONDS = 2.0
"""With a server that may rightly wait for more of the request."""
UNFINISHED_HEADERS = ("Content-Length", "Transfer-Encoding", "Upgrade", "Connection")
"""With one of them in addition the request may look unfinished."""
TURN = {"role": "user", "content": f"{CANARY} has chest pain"}
ITEM = {"note": f"{CANARY} has chest pain.", "question": "What hurts?"}
RIGHT_BODIES: dict[str, dict[str, Any]] = {
    CHAT: {
        "model": "trained",
        "messages": [TURN],
        "max_tokens": 3,
        "temperature": 0.5,
        "seed": 1,
        "stop": ["x"],
    },
    COMPLETIONS: {"model": "trained", "prompt": ["a", CANARY], "max_tokens": 2, "n": 2, "logprobs": 1},
    CLINICAL: {**ITEM, "max_tokens": 3, "task": "summarization"},
    BATCH: {"items": [ITEM, {"id": "b", **ITEM}], "max_tokens": 2},
}
READ_PATHS = ["/v1/models", "/v1/models/trained", "/v1/clinical/tasks", "/openapi.json", "/health/ready"]
ODD_VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**63,
    2**64,
    -(2**70),
    10**400,
    0.5,
    1e308,
    -0.0,
    "",
    " ",
    "\x00",
    "\u202e",
    CANARY,
    CANARY * 300,
    [],
    {},
    [[]],
    [None],
    [CANARY],
    [[1, 2], ["a"]],
    {"": 1},
    {"type": "text"},
    {"type": "text", "text": CANARY},
    {"include_usage": True},
    [1, 2, 3],
    [10**9],
    "trained",
]
ODD_HEADERS = [
    "Content-Type: text/plain",
    "Content-Type: application/json; charset=utf-16",
    "Accept: text/html",
    "Expect: 100-continue",
    "X-Odd: " + "a" * 5000,
    "Cookie: a=b; c",
    "Content-Encoding: gzip",
    "Transfer-Encoding: identity",
    "Host:",
    "Authorization: Bearer",
    "Authorization: Basic abc",
    "X: \x01\x02",
    "Range: bytes=0-5",
    "Connection: upgrade",
    "Upgrade: websocket",
    "Accept-Encoding: *",
    "Content-Length: 5",
    "If-None-Match: *",
    f"X-Request-Id: {CANARY} has pain",
    "Origin: http://elsewhere",
]
ODD_PATHS = [
    "/",
    "//",
    "/v1",
    "/v1/",
    "/v1//models",
    "/v1/models/",
    "/v1/models/%00",
    "/v1/models/%ff%fe",
    "/../../etc",
    "/v1/models/" + "a" * 9000,
    "/v1/models/\xe4",
    f"/{CANARY}?{CANARY}={CANARY}",
    "/v1/chat/completions/",
    "/v1/chat/completions?stream=true",
    "/docs/x",
    "*",
    "",
    "http://elsewhere/v1/models",
    "/%2e%2e/%2e%2e/",
]
ODD_METHODS = ["GET", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "CONNECT", "BREW", "post", ""]


@dataclass(frozen=True)
class Sending:
    """The bytes of one request, and what happens to its connection: read to the end, or broken off."""

    content: bytes
    ending: str
    may_wait: bool = False
    """The server may take the request for unfinished."""


@dataclass(frozen=True)
class Received:
    """What came back, and whether the server ended it."""

    content: bytes
    is_whole: bool


@dataclass
class Findings:
    """What came back."""

    statuses: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def make_request(chance: random.Random) -> Sending:
    kinds = ["body", "raw body", "head", "path", "method", "break", "stream"]
    kind = chance.choices(kinds, [8, 3, 3, 2, 1, 4, 1])[0]
    path = chance.choice(list(RIGHT_BODIES))
    body = json.dumps(_mutated(chance, RIGHT_BODIES[path]) if kind == "body" else RIGHT_BODIES[path]).encode()
    headers: list[str] = []
    method = "POST"
    ending = "read"
    match kind:
        case "raw body":
            body = _damaged(chance, body)
        case "head":
            headers = chance.sample(ODD_HEADERS, chance.randrange(1, 4))
        case "path":
            path, body = chance.choice([*ODD_PATHS, *READ_PATHS]), chance.choice([b"", body])
            method = chance.choice(["GET", "POST"])
        case "method":
            method = chance.choice(ODD_METHODS)
        case "stream":
            path = chance.choice([CHAT, COMPLETIONS, CLINICAL])
            body = json.dumps({**RIGHT_BODIES[path], "stream": True}).encode()
        case "break":
            ending = chance.choice(["half", "reset half", "close", "reset", "first byte"])
            if path != BATCH and chance.random() < 0.5:
                body = json.dumps({**RIGHT_BODIES[path], "stream": True, "max_tokens": 200}).encode()
    content, may_wait = _request(chance, method, path, headers, body)
    may_wait |= method == "CONNECT" or any(header.startswith(UNFINISHED_HEADERS) for header in headers)
    return Sending(content, ending, may_wait)


def _request(
    chance: random.Random, method: str, path: str, headers: list[str], body: bytes
) -> tuple[bytes, bool]:
    """The bytes, and whether they may look unfinished."""
    lines = [f"{method} {path} HTTP/1.1", "Host: here", *headers]
    if chance.random() < 0.95:
        lines.append(f"Authorization: Bearer {API_KEY}")
    size = wrong = 0
    if chance.random() < 0.1:
        size = chance.choice([f"{len(body):x}", f"{len(body):x}", "zz", "-5", "fffffffff", ""])
        lines.append("Transfer-Encoding: chunked")
        body = f"{size}\r\n".encode() + body + b"\r\n0\r\n\r\n"
    else:
        wrong = chance.choice([-3, 5, 10**7, 10**30]) if chance.random() < 0.05 else 0
        lines.append(f"Content-Length: {max(0, len(body) + wrong)}")
    head = "\r\n".join(lines).encode("latin-1") + b"\r\nConnection: close\r\n\r\n"
    return head + body, size != 0 or wrong != 0


def _mutated(chance: random.Random, body: dict[str, Any]) -> Any:
    """The body with one to three of its values, at any depth, replaced, removed or joined by another."""
    body = json.loads(json.dumps(body))
    for _ in range(chance.randrange(1, 4)):
        holder: Any = chance.choice(_holders(body))
        if isinstance(holder, list):
            holder.insert(chance.randrange(len(holder) + 1), copy.deepcopy(chance.choice(ODD_VALUES)))
            continue
        names = [
            *holder,
            "stream",
            "n",
            "top_p",
            "logprobs",
            "top_logprobs",
            "echo",
            "long_note",
            "odd",
            CANARY,
        ]
        name = chance.choice(names)
        if chance.random() < 0.2:
            holder.pop(name, None)
        else:
            holder[name] = copy.deepcopy(chance.choice(ODD_VALUES))
    return body if chance.random() < 0.95 else copy.deepcopy(chance.choice(ODD_VALUES))


def _holders(value: Any) -> list[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    found = [value] if isinstance(value, dict | list) else []
    return found + [holder for each in inner for holder in _holders(each)]


def _damaged(chance: random.Random, body: bytes) -> bytes:
    place = chance.randrange(len(body))
    damages: list[Callable[[], bytes]] = [
        lambda: body[:place],
        lambda: body[:place] + chance.randbytes(4) + body[place:],
        lambda: chance.randbytes(chance.randrange(200)),
        lambda: b"\xef\xbb\xbf" + body,
        lambda: body.decode().encode("utf-16"),
        lambda: b"[" * chance.choice([10, 300, 5000]) + body,
        lambda: body.replace(b"0.5", b"NaN").replace(b"3", b"1e999"),
        lambda: body.replace(b"pain", b"\\ud800"),
        lambda: body[:-1] + b"," + body[1:],
        lambda: body + body,
        lambda: b"",
    ]
    return chance.choice(damages)()


async def send_all(address: str, seed: int, num_requests: int) -> Findings:
    """Sends them, some at a time.

    A fault is a 5xx, a hang, an error of another shape or with the canary, a stream without its end.
    """
    findings = Findings()
    places = asyncio.Semaphore(REQUESTS_AT_A_TIME)
    chance = random.Random(seed)

    async def send_one(number: int, sending: Sending) -> None:
        async with places:
            try:
                async with asyncio.timeout(LONGEST_ANSWER_SECONDS):
                    received = await _exchange(address, sending)
            except TimeoutError:
                findings.faults.append(f"request {number} hangs")
                return
        _judge(number, sending, received, findings)

    async with asyncio.TaskGroup() as group:
        for number in range(num_requests):
            group.create_task(send_one(number, make_request(chance)))
    return findings


async def _exchange(address: str, sending: Sending) -> Received:
    host, port = address.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    received = Received(b"", is_whole=False)
    try:
        with contextlib.suppress(ConnectionError):
            content = sending.content
            writer.write(content[: len(content) // 2] if "half" in sending.ending else content)
            await writer.drain()
            if sending.ending == "first byte":
                received = Received(await reader.read(1), is_whole=False)
            elif sending.ending == "read":
                received = await _read_all(reader, PATIENCE_SECONDS if sending.may_wait else None)
            if "reset" in sending.ending:
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    return received


async def _read_all(reader: asyncio.StreamReader, patience_seconds: float | None) -> Received:
    """All that comes; what has come where the server does not go on for so long."""
    content = b""
    while True:
        try:
            part = await asyncio.wait_for(reader.read(1 << 16), patience_seconds)
        except TimeoutError:
            return Received(content, is_whole=False)
        except ConnectionError:
            # A server that does not read the rest of a body resets the connection behind its answer.
            return Received(content, is_whole=True)
        if not part:
            return Received(content, is_whole=True)
        content += part


def _judge(number: int, sending: Sending, received: Received, findings: Findings) -> None:
    if sending.ending != "read":
        findings.statuses["broken off"] += 1
        return
    answer = received.content.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    if not answer:
        findings.statuses["without a word" if received.is_whole else "kept waiting"] += 1
        return
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.split(b" ")[1].decode()
    findings.statuses[status] += 1
    faults = _faults(status, head, body)
    if b"text/event-stream" in head:
        findings.statuses["streams"] += 1
        faults += _faults_of_stream(body)
    findings.faults += [f"request {number} gets {fault}" for fault in faults]


def _faults(status: str, head: bytes, body: bytes) -> list[str]:
    faults = [status] if status.startswith("5") else []
    if not status.startswith("2") and CANARY.encode() in head + body:
        faults.append("its text back")
    is_ours = b"application/json" in head
    if status.startswith("4") and is_ours and body and b'"code":' not in body:
        faults.append("an error of another shape")
    return faults


def _faults_of_stream(body: bytes) -> list[str]:
    faults = [] if b"data: [DONE]\n\n" in body else ["a stream without its end"]
    return [*faults, "a stream that fails"] if b'data: {"error"' in body else faults
