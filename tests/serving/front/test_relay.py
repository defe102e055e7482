"""The front without a cluster: what is held, for how long, and what a client hears when a replica is lost."""

import asyncio
import json
import pickle
import re
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError
from served_models import API_KEY, LONG_ANSWER, save_tiny_model
from starlette.middleware import Middleware
from starlette.types import ASGIApp
from transformers import AutoTokenizer

from asclepius_ray.errors import ConfigError, ServingError
from asclepius_ray.serving.access.access import Access
from asclepius_ray.serving.access.account import Account, Caller
from asclepius_ray.serving.access.gate import Gate
from asclepius_ray.serving.access.key_ring import KeyRing
from asclepius_ray.serving.access.keys import hash_key
from asclepius_ray.serving.admission.admission import Admission
from asclepius_ray.serving.config import ServingConfig
from asclepius_ray.serving.engines.start import start_engine
from asclepius_ray.serving.front.call import Call, Item, Part, Taken, cost_of
from asclepius_ray.serving.front.carried_figures import CarriedFigures
from asclepius_ray.serving.front.in_process import CallBound, answer_call
from asclepius_ray.serving.front.names import check_names, deployment_name, needs_front
from asclepius_ray.serving.front.relay import Relay, ReplicaLostError
from asclepius_ray.serving.front.surface import front_surface
from asclepius_ray.serving.meters import Figure, Meters, Observation, Record
from asclepius_ray.serving.model_source import locate_adapter
from asclepius_ray.serving.surface.metrics_route import metrics_route
from asclepius_ray.serving.surface.served_model import ServedModel
from asclepius_ray.serving.surface.surface import build_surface
from asclepius_ray.tokens.rendering import end_token_id

NO_COST = cost_of(Account("id", "", Caller("key")))
CHAT = "/v1/chat/completions"
STREAM_HEADERS = ((b"content-type", b"text/event-stream; charset=utf-8"),)


@dataclass
class ScriptedLine:
    """A replica that says what the test has it say, once `opened`."""

    items: list[Item]
    is_lost: bool = False
    is_running: bool = False
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    calls: list[Call] = field(default_factory=list)

    async def ask(self, call: Call) -> AsyncGenerator[Item, None]:
        self.calls.append(call)
        await self.opened.wait()
        for item in self.items:
            yield item
        if self.is_lost:
            raise ReplicaLostError

    async def has_replica(self) -> bool:
        return self.is_running


def answer(*, is_whole: bool = True, headers: tuple[tuple[bytes, bytes], ...] = ()) -> list[Item]:
    parts: list[Item] = [Taken(), Part(b"data: 1\n\n", NO_COST, 200, headers)]
    return [*parts, Part(b"", NO_COST, is_last=True)] if is_whole else parts


def client_of(relay: Relay, meters: Meters | None = None) -> httpx.AsyncClient:
    meters = meters or Meters()

    async def is_ready() -> bool:
        return await relay.line.has_replica()

    gate = Middleware(Gate, access=Access(KeyRing(hash_key(API_KEY)), meters))
    surface = front_surface({"one": relay}, is_ready, [gate], [metrics_route(meters)])
    transport = httpx.ASGITransport(surface)
    return httpx.AsyncClient(
        transport=transport, base_url="http://front", headers={"Authorization": f"Bearer {API_KEY}"}
    )


async def ask(client: httpx.AsyncClient, **headers: str) -> httpx.Response:
    body = {"model": "one", "messages": LONG_ANSWER}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.post(CHAT, json=body, headers=named)


def test_so_many_are_held_while_there_is_no_replica_and_the_next_hears_when_to_come_again() -> None:
    async def check() -> None:
        line = ScriptedLine(answer())
        relay = Relay(line, most_held=2)
        async with client_of(relay) as client:
            held = [asyncio.create_task(ask(client)) for _ in range(2)]
            while len(line.calls) < 2:
                await asyncio.sleep(0)
            async with asyncio.timeout(20):
                refused = await ask(client)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_starting")
            assert int(refused.headers["Retry-After"]) >= 1
            line.is_running = True
            held.append(asyncio.create_task(ask(client)))
            line.opened.set()
            assert [(await each).status_code for each in held] == [200, 200, 200]
        assert relay.num_held == 0

    asyncio.run(check())


def test_a_held_request_ends_with_its_deadline_and_leaves_its_place() -> None:
    async def check() -> None:
        relay = Relay(ScriptedLine(answer()), most_held=1)
        async with client_of(relay) as client:
            late = await ask(client, x_request_timeout_seconds="0.1")
        assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline_exceeded")
        assert relay.num_held == 0

    asyncio.run(check())


@pytest.mark.parametrize("is_lost", [True, False], ids=["it says so", "it falls silent"])
def test_a_lost_replica_is_a_503_before_the_first_byte_and_an_event_after_it(is_lost: bool) -> None:
    async def answered(items: list[Item]) -> httpx.Response:
        line = ScriptedLine(items, is_lost)
        line.opened.set()
        async with client_of(Relay(line, most_held=1)) as client:
            return await ask(client)

    before = asyncio.run(answered([Taken()]))
    assert (before.status_code, before.json()["error"]["code"]) == (503, "engine_unavailable")
    assert int(before.headers["Retry-After"]) >= 1
    after = asyncio.run(answered(answer(is_whole=False, headers=STREAM_HEADERS)))
    events = after.text.split("\n\n")
    assert (after.status_code, events[0], events[-1]) == (200, "data: 1", "")
    assert '"code":"engine_unavailable"' in events[1]


def test_the_call_names_the_caller_and_the_time_left_but_holds_no_key() -> None:
    async def check() -> None:
        line = ScriptedLine(answer())
        line.opened.set()
        async with client_of(Relay(line, most_held=1)) as client:
            await ask(client, x_request_timeout_seconds="60", x_request_id="given")
        [call] = line.calls
        assert (call.caller.key_id, call.request_id, call.path) == ("operator", "given", CHAT)
        assert call.deadline is not None
        assert 50 < call.deadline - time.monotonic() <= 60
        assert API_KEY not in repr(call)

    asyncio.run(check())


def test_a_call_arrives_with_the_age_and_the_time_left_that_it_had_when_it_was_packed() -> None:
    started = time.monotonic() - 5.0
    call = Call("POST", CHAT, b"", "id", CHAT, Caller("key"), started, started + 60.0)
    time.sleep(0.1)
    packed, packed_at = pickle.dumps(call), time.monotonic()
    # As on a machine whose clock shows other seconds.
    time.sleep(0.2)
    arrived, arrived_at = pickle.loads(packed), time.monotonic()
    assert arrived.deadline is not None
    assert arrived_at - arrived.started == pytest.approx(packed_at - started, abs=0.05)
    assert arrived.deadline - arrived_at == pytest.approx(started + 60.0 - packed_at, abs=0.05)
    assert (arrived.path, arrived.caller) == (call.path, call.caller)


def test_a_front_is_not_ready_before_its_model_is() -> None:
    async def status(is_running: bool) -> int:
        async with client_of(Relay(ScriptedLine([], is_running=is_running), 1)) as client:
            return (await client.get("/health/ready")).status_code

    assert [asyncio.run(status(is_running)) for is_running in (False, True)] == [503, 200]


@dataclass(frozen=True)
class Behind:
    """A replica's own application on a real engine."""

    model: ServedModel
    application: ASGIApp
    figures: CarriedFigures

    async def answer(self, body: bytes) -> AsyncGenerator[Item, None]:
        call = Call("POST", CHAT, body, "id", CHAT, Caller("key"), time.monotonic())
        async with aclosing(answer_call(self.application, call, self.figures)) as items:
            async for item in items:
                yield item


@dataclass(frozen=True)
class StartingLine:
    """The way to a replica that starts only when somebody asks, and takes `seconds` for it."""

    behind: Behind
    seconds: float

    async def ask(self, call: Call) -> AsyncGenerator[Item, None]:
        await asyncio.sleep(self.seconds)
        arrived = pickle.loads(pickle.dumps(call))
        async with aclosing(answer_call(self.behind.application, arrived, self.behind.figures)) as items:
            async for item in items:
                yield item

    async def has_replica(self) -> bool:
        return True


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    folder = save_tiny_model(tmp_path_factory.mktemp("model") / "one", seed=3)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    end_ids = frozenset({end_token_id(tokenizer), tokenizer.eos_token_id})
    engine = start_engine(ServingConfig(), str(folder), end_ids, 1.0, {})
    figures = CarriedFigures()
    meters = Meters(figures)
    model = ServedModel("one", engine, tokenizer, 48, Admission(meters=meters))
    bound = Middleware(CallBound, most=1, meters=meters)
    yield Behind(model, build_surface({"one": model}, [bound]), figures)
    engine.stop()


def body(num_tokens: int, is_streamed: bool) -> bytes:
    asked = {"model": "one", "messages": LONG_ANSWER, "max_tokens": num_tokens, "temperature": 0}
    return json.dumps({**asked, "stream": is_streamed}).encode()


def test_a_call_that_is_given_up_stops_its_engine_and_one_too_many_is_refused(behind: Behind) -> None:
    async def check() -> None:
        await behind.model.engine.warm_up()
        async with aclosing(behind.answer(body(1900, is_streamed=True))) as items:
            assert await anext(items) == Taken()
            first = await anext(items)
            assert isinstance(first, Part)
            assert first.status == 200
            made = behind.model.engine.stats().generated_tokens
            refused = [item async for item in behind.answer(body(4, is_streamed=False))]
            assert [item.status for item in refused if isinstance(item, Part)] == [429]
        async with asyncio.timeout(20):
            while behind.model.engine.stats().running_requests:
                await asyncio.sleep(0.01)
        assert behind.model.admission.held_tokens == 0
        assert behind.model.engine.stats().generated_tokens < made + 1000
        [_, last] = [item async for item in behind.answer(body(4, is_streamed=False))]
        assert isinstance(last, Part)
        # Who has read the body may leave: its costs came no later.
        assert last.body
        assert last.is_last
        assert (last.cost.completion_tokens, last.cost.outcome) == (4, "length")

    asyncio.run(check())


def test_the_front_shows_every_count_and_time_of_its_replicas_the_wait_for_one_included(
    behind: Behind,
) -> None:
    async def check() -> dict[str, float]:
        heard: list[Observation] = []
        meters = Meters(Listener(heard))
        relay = Relay(StartingLine(behind, seconds=0.5), 1, meters)
        async with client_of(relay, meters) as client:
            for num_tokens in (4, 8):
                asked = json.loads(body(num_tokens, is_streamed=num_tokens == 8))
                assert (await client.post(CHAT, json=asked)).status_code == 200
            behind.model.admission.is_draining = True
            assert (await ask(client)).status_code == 503
            # Ray's exporter has them from the replica already.
            assert {observed.figure for observed in heard} == {"http_requests"}
            return figures_of((await client.get("/metrics")).text)

    behind.figures.take()
    try:
        found = asyncio.run(check())
    finally:
        behind.model.admission.is_draining = False
    assert found["admitted_requests_total"] == found["first_token_seconds_count"] == 2
    assert found["completion_tokens_total"] == 4 + 8
    assert found["prompt_tokens_total"] > 2
    assert found["queue_seconds_count"] == found["token_seconds_count"] == 2
    assert found["first_token_seconds_sum"] > 2 * 0.5
    assert found["queue_seconds_sum"] < 0.5
    assert found["refused_requests_total of draining"] == 1


def figures_of(text: str) -> dict[str, float]:
    """Of the model one, without the buckets."""
    lines = re.findall(
        r'^asclepius_serving_(\w+)\{model="one"(?:,reason="(\w+)")?\} (\S+)$', text, re.MULTILINE
    )
    return {f"{name} of {reason}" if reason else name: float(value) for name, reason, value in lines}


@dataclass(frozen=True)
class Listener:
    """A mirror that keeps what it hears."""

    heard: list[Observation]

    def open(self, figure: Figure) -> Record:
        return lambda value, labels: self.heard.append(Observation(figure.name, value, labels))


def test_several_models_or_none_at_times_need_a_front() -> None:
    cases = {(1, 1): False, (1, 4): False, (2, 1): True, (1, 0): True}
    assert {case: needs_front(*case) for case in cases} == cases


def test_no_two_models_have_one_name() -> None:
    with pytest.raises(ValidationError, match="'x' is the name of a model already"):
        ServingConfig(models={"x": "a"}, adapters={"x": "b"})
    for config in (ServingConfig(models={"one": "a"}), ServingConfig(adapters={"one": "b"})):
        with pytest.raises(ConfigError, match="'one' is the name of the model itself"):
            check_names("one", config)
    assert deployment_name("a/b") != deployment_name("a-b")


def test_what_is_no_adapter_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="it has no adapter_config"):
        locate_adapter(str(tmp_path))


def test_the_front_carries_no_engine() -> None:
    names = "('torch', 'transformers', 'vllm')"
    code = (
        f"import sys, asclepius_ray.serving.front.front; assert not [x for x in {names} if x in sys.modules]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
