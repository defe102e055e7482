"""However an answer ends, its generation ends, its place is given back, and the account says how it ended."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from scripted_engine import Script, ScriptedEngine, saying
from served_models import API_KEY
from starlette.types import ASGIApp, Receive, Scope, Send
from surfaces import BATCH, CHAT, CLINICAL, COMPLETIONS, Surface, application_for, listen, model_on
from transformers import AutoTokenizer

from asclepius_ray.serving.access.account import Account
from asclepius_ray.serving.engines.engine import GenerationRequest, TokenChunk
from asclepius_ray.serving.surface import event_stream, watch
from asclepius_ray.serving.surface.served_model import ServedModel

CANARY = "zebrafinch-canary"
LONG_NOTE = ("shorten", "refuse")
TURN = [{"role": "user", "content": CANARY}]
CHAT_BODY = {"model": "one", "messages": TURN, "max_tokens": 30}
BODIES = {
    CHAT: CHAT_BODY,
    COMPLETIONS: {"model": "one", "prompt": CANARY, "max_tokens": 30},
    CLINICAL: {"note": CANARY, "question": CANARY, "max_tokens": 30},
}


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


class Accounts:
    """Stands behind the gate and keeps each request's account."""

    def __init__(self, application: ASGIApp) -> None:
        self._application = application
        self.seen: list[Account] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._application(scope, receive, send)
        finally:
            if scope["type"] == "http":
                self.seen.append(scope["state"]["account"])


@contextmanager
def scripted(engine: ScriptedEngine, tokenizer: Any) -> Iterator[tuple[Surface, Accounts]]:
    models = {"one": model_on("one", engine, tokenizer)}
    accounts = Accounts(application_for(models))
    with listen(accounts) as address:
        yield Surface(address, models), accounts


def outcome(surface: Surface, accounts: Accounts) -> str:
    """How the last request ended, once nothing is held any more."""
    assert surface.is_idle()
    give_up = time.monotonic() + 20
    while not accounts.seen and time.monotonic() < give_up:
        time.sleep(0.02)
    return accounts.seen[-1].outcome


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, CLINICAL])
def test_an_engine_that_fails_in_a_stream_gives_an_error_event_and_no_done(path: str, tokenizer: Any) -> None:
    with scripted(ScriptedEngine(saying([70], [71], then="fail")), tokenizer) as (surface, accounts):
        answer = surface.post(path, {**BODIES[path], "stream": True})
        events = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
        error = json.loads(events[-1])["error"]
        assert answer.status_code == 200
        assert (error["code"], error["type"]) == ("engine_unavailable", "server_error")
        assert "[DONE]" not in events
        assert CANARY not in answer.text
        assert outcome(surface, accounts) == "error"


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, CLINICAL])
@pytest.mark.parametrize("stream", [False, True])
def test_an_engine_that_fails_before_it_says_anything_gives_503(
    path: str, stream: bool, tokenizer: Any
) -> None:
    with scripted(ScriptedEngine(saying(then="fail")), tokenizer) as (surface, accounts):
        answer = surface.post(path, {**BODIES[path], "stream": stream})
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert answer.json()["error"]["code"] == "engine_unavailable"
        assert outcome(surface, accounts) == "error"


def test_an_engine_that_has_ended_takes_no_place(tokenizer: Any) -> None:
    with scripted(ScriptedEngine(saying([70]), has_ended=True), tokenizer) as (surface, _):
        assert surface.post(CHAT, CHAT_BODY).status_code == 503
        assert surface.get("/health/ready").status_code == 503
        assert surface.get("/health/live").status_code == 200
        assert surface.is_idle()


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, CLINICAL])
def test_a_deadline_that_passes_ends_the_answer_with_504(path: str, tokenizer: Any) -> None:
    engine = ScriptedEngine(saying([70], [71], then="wait"))
    headers = {"Authorization": f"Bearer {API_KEY}", "x-request-timeout-seconds": "0.3"}
    with scripted(engine, tokenizer) as (surface, accounts):
        answer = surface.post(path, BODIES[path], headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
        assert outcome(surface, accounts) == "deadline"
        streamed = surface.post(path, {**BODIES[path], "stream": True}, headers)
        assert json.loads(streamed.text.split("data: ")[-1])["error"]["code"] == "deadline_exceeded"
        assert outcome(surface, accounts) == "deadline"
        assert not engine.running


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, CLINICAL, BATCH])
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_ends_all_its_choices(path: str, stream: bool, tokenizer: Any) -> None:
    engine = ScriptedEngine(saying([70], then="wait"))
    body = {
        CHAT: CHAT_BODY | {"n": 3, "stream": stream},
        COMPLETIONS: BODIES[COMPLETIONS] | {"n": 3, "stream": stream},
        CLINICAL: BODIES[CLINICAL] | {"stream": stream},
        BATCH: {"items": [{"note": CANARY, "question": CANARY}] * 3, "long_note": LONG_NOTE[stream]},
    }[path]
    with scripted(engine, tokenizer) as (surface, accounts):
        client = open_request(surface, path, body)
        expected = 1 if path == CLINICAL else 3
        wait_for(lambda: len(engine.running) == expected)
        client.close()
        wait_for(lambda: not engine.running)
        assert outcome(surface, accounts) == "cancelled"


async def ask_directly(
    model: ServedModel, send: Send, timeout_seconds: float = 600.0, stream: bool = True
) -> None:
    """A chat without a server between; the client never goes away by itself."""
    body = json.dumps({**CHAT_BODY, "stream": stream}).encode()
    messages = [{"type": "http.request", "body": body, "more_body": False}]
    scope = {
        "type": "http",
        "method": "POST",
        "path": CHAT,
        "raw_path": CHAT.encode(),
        "query_string": b"",
        "headers": [
            (b"authorization", f"Bearer {API_KEY}".encode()),
            (b"x-request-timeout-seconds", str(timeout_seconds).encode()),
        ],
    }

    async def receive() -> Any:
        return messages.pop() if messages else await asyncio.Event().wait()

    await application_for({"one": model})(scope, receive, send)


def test_a_client_that_reads_nothing_is_taken_for_gone(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "STALL_SECONDS", 0.2)
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.1)
    engine = ScriptedEngine(saying([70], [71], then="wait"))
    model = model_on("one", engine, tokenizer)
    sent: list[str] = []

    async def send(message: Any) -> None:
        sent.append(message["type"])
        if len(sent) > 2:
            await asyncio.Event().wait()

    asyncio.run(asyncio.wait_for(ask_directly(model, send), 30))
    assert len(sent) == 3
    assert model.admission.held_tokens == 0
    assert not engine.running


@pytest.mark.parametrize("then", ["wait", "fail"])
def test_a_client_that_reads_nothing_keeps_no_place_once_its_answer_has_failed(
    then: str, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "STALL_SECONDS", 1.0)
    engine = ScriptedEngine(saying([70], then=then))
    model = model_on("one", engine, tokenizer)
    held_tokens: list[int] = []

    async def send(message: Any) -> None:
        if b"error" in message.get("body", b""):
            held_tokens.append(model.admission.held_tokens)
            await asyncio.Event().wait()

    asyncio.run(asyncio.wait_for(ask_directly(model, send, timeout_seconds=0.3), 30))
    assert held_tokens == [0]
    assert not engine.running


def test_a_client_that_does_not_take_its_whole_answer_keeps_no_place(tokenizer: Any) -> None:
    model = model_on("one", ScriptedEngine(saying([70], [1])), tokenizer)
    held_tokens: list[int] = []

    async def send(message: Any) -> None:
        held_tokens.append(model.admission.held_tokens)

    asyncio.run(ask_directly(model, send, stream=False))
    assert held_tokens == [0, 0]


def test_a_stream_whose_first_send_fails_gives_its_place_back(tokenizer: Any) -> None:
    engine = ScriptedEngine(saying([70], then="wait"))
    model = model_on("one", engine, tokenizer)

    async def send(_: Any) -> None:
        raise OSError("the connection is gone")

    with pytest.raises(OSError, match="connection is gone"):
        asyncio.run(ask_directly(model, send))
    assert model.admission.held_tokens == 0
    assert not engine.running


def test_a_request_that_is_cut_off_gives_its_place_back(tokenizer: Any) -> None:
    engine = ScriptedEngine(saying([70], then="wait"))
    model = model_on("one", engine, tokenizer)

    async def send(_: Any) -> None:
        pass

    async def cut_off() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ask_directly(model, send), 0.3)

    asyncio.run(cut_off())
    assert model.admission.held_tokens == 0
    assert not engine.running
    assert engine.requests


def test_a_request_that_is_refused_takes_no_place_in_the_engine(tokenizer: Any) -> None:
    engine = ScriptedEngine(saying([70], then="wait"))
    with scripted(engine, tokenizer) as (surface, _):
        waiting = open_request(surface, CHAT, {**CHAT_BODY, "max_tokens": 1900, "n": 10})
        wait_for(lambda: len(engine.running) == 10)
        refused = surface.post(CHAT, {**CHAT_BODY, "max_tokens": 1900})
        assert (refused.status_code, refused.json()["error"]["type"]) == (429, "rate_limit_error")
        assert int(refused.headers["Retry-After"]) >= 1
        assert len(engine.requests) == 10
        waiting.close()
        assert surface.is_idle()


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, CLINICAL])
def test_a_full_replica_refuses_a_request_unread(path: str, tokenizer: Any) -> None:
    engine = ScriptedEngine(saying([70], then="wait"))
    with scripted(engine, tokenizer) as (surface, accounts):
        waiting = open_request(surface, CHAT, CHAT_BODY)
        wait_for(lambda: engine.running)
        admission = surface.models["one"].admission
        admission.budget_tokens = admission.held_tokens
        # One that is read gets a 400.
        refused = surface.post(path, {**BODIES[path], "max_tokens": CANARY})
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert int(refused.headers["Retry-After"]) >= 1
        wait_for(lambda: accounts.seen)
        assert (accounts.seen[-1].outcome, accounts.seen[-1].model) == ("capacity", "one")
        waiting.close()
        assert surface.is_idle()
        assert surface.post(path, {**BODIES[path], "max_tokens": CANARY}).status_code == 400


ITEM = {"note": CANARY, "question": CANARY}
BATCH_ENDINGS = {
    "all answered": ([ITEM, ITEM], saying([70, 1]), "stop"),
    "all cut off": ([ITEM, ITEM], saying([70, 70, 70]), "length"),
    "all failed": ([ITEM, ITEM], saying([70], then="fail"), "error"),
    "one refused": ([ITEM, {"note": CANARY}, ITEM], saying([70, 1]), "refused"),
}


@pytest.mark.parametrize(("items", "script", "expected"), BATCH_ENDINGS.values(), ids=BATCH_ENDINGS.keys())
def test_a_batch_ends_as_the_first_of_its_items_that_has_no_end_of_its_own(
    items: list[Any], script: Script, expected: str, tokenizer: Any
) -> None:
    with scripted(ScriptedEngine(script), tokenizer) as (surface, accounts):
        assert surface.post(BATCH, {"items": items, "max_tokens": 3}).status_code == 200
        assert outcome(surface, accounts) == expected


def test_the_line_of_a_batch_is_queue_time_and_no_part_of_the_first_token_time(tokenizer: Any) -> None:
    async def slowly(_: GenerationRequest) -> AsyncGenerator[TokenChunk, None]:
        yield TokenChunk([70])
        await asyncio.sleep(0.5)
        yield TokenChunk([1])

    with scripted(ScriptedEngine(slowly), tokenizer) as (surface, _):
        surface.models["one"].admission.budget_tokens = 1
        found = surface.post(BATCH, {"items": [ITEM] * 3, "max_tokens": 3}).json()
    seconds = sorted((item["answer"]["seconds"] for item in found["items"]), key=lambda one: one["queue"])
    assert all(one["queue"] >= 0.45 * place for place, one in enumerate(seconds))
    assert all(one["first_token"] < 0.4 for one in seconds)


def test_a_seed_is_the_first_choices_and_the_others_have_their_own(tokenizer: Any) -> None:
    engine = ScriptedEngine(saying([70]))
    with scripted(engine, tokenizer) as (surface, _):
        for _ in range(2):
            surface.post(CHAT, {**CHAT_BODY, "n": 3, "seed": 5})
        surface.post(CHAT, {**CHAT_BODY, "n": 2})
    seeds = [request.seed for request in sorted(engine.requests[:3], key=lambda request: request.request_id)]
    assert seeds[0] == 5
    assert len(set(seeds)) == 3
    assert {request.seed for request in engine.requests[3:6]} == set(seeds)
    assert [request.seed for request in engine.requests[6:]] == [None, None]


def test_tokens_behind_the_end_are_neither_said_nor_counted(tokenizer: Any) -> None:
    ids = tokenizer("one stop two", add_special_tokens=False)["input_ids"]
    with scripted(ScriptedEngine(saying([*ids, 1, *ids])), tokenizer) as (surface, accounts):
        ended = surface.post(CHAT, {**CHAT_BODY, "max_tokens": 90}).json()
        stopped = surface.post(CHAT, {**CHAT_BODY, "max_tokens": 90, "stop": "stop"}).json()
        assert ended["choices"][0]["message"]["content"] == "one stop two"
        assert ended["usage"]["completion_tokens"] == len(ids) + 1
        assert stopped["choices"][0]["message"]["content"] == "one "
        assert stopped["usage"]["completion_tokens"] < len(ids)
        assert [choice["choices"][0]["finish_reason"] for choice in (ended, stopped)] == ["stop", "stop"]
        assert accounts.seen[0].completion_tokens == len(ids) + 1
        assert accounts.seen[0].first_token_seconds is not None


def test_several_tokens_of_a_chunk_are_one_event(tokenizer: Any) -> None:
    ids = tokenizer("one two three", add_special_tokens=False)["input_ids"]
    with scripted(ScriptedEngine(saying(ids[:1], ids[1:])), tokenizer) as (surface, _):
        text = surface.post(CHAT, {**CHAT_BODY, "stream": True}).text
    events = [json.loads(line[6:]) for line in text.split("\n\n") if line and "[DONE]" not in line]
    said = [event["choices"][0]["delta"].get("content") for event in events]
    assert "".join(piece or "" for piece in said) == "one two three"
    assert len([piece for piece in said if piece]) == 2


def open_request(surface: Surface, path: str, body: dict[str, Any]) -> socket.socket:
    """A connection on which the request was sent, and nothing is read."""
    content = json.dumps(body).encode()
    host, port = surface.address.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)))
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {API_KEY}\r\n"
    connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
    return connection


def wait_for(condition: Any, seconds: float = 20.0) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "it never came to that"
        time.sleep(0.02)
