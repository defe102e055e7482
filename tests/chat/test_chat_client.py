"""The client over real HTTP against the offline teacher, which is told to misbehave."""

import asyncio
import contextlib
import json
import logging
import pickle
import socket
import threading
import time
from collections.abc import Coroutine, Iterator
from dataclasses import asdict, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, TypeVar

import pytest

from asclepius_ray.chat import connection
from asclepius_ray.chat.client import ChatClient, check_endpoint
from asclepius_ray.chat.config import OFFLINE_MODEL, EndpointConfig, PriceConfig
from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.chat.exchange import Completion, Failure, Request
from asclepius_ray.chat.gate import LocalGate, Patience
from asclepius_ray.chat.limiter import Limits
from asclepius_ray.chat.offline.faults import Faults
from asclepius_ray.chat.offline.server import OfflineTeacher
from asclepius_ray.errors import EndpointError
from asclepius_ray.prompts.rendering import render_note_prompt
from asclepius_ray.records import Message

CANARY = "kryptonithemia"
KEY = "sk-test-4711-secret"
REPORT = (
    f"A 61-year-old man presented with {CANARY} for 3 days. He was given aspirin 100 mg daily and went home."
)

Result = TypeVar("Result")


def run(coroutine: Coroutine[Any, Any, Result]) -> Result:
    return asyncio.run(coroutine)


def request_note(report: str = REPORT, max_tokens: int = 1024, **settings: bool) -> Request:
    return Request("note", tuple(render_note_prompt(report)), 1.0, max_tokens, **settings)


def endpoint_of(teacher: OfflineTeacher, **settings: object) -> Endpoint:
    values: dict[str, Any] = {"timeout_seconds": 10.0, "max_attempts": 2, **settings}
    return Endpoint(teacher.base_url, OFFLINE_MODEL, **values)


@contextlib.contextmanager
def scripted_server(
    *script: tuple[int, dict[str, str], object],
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server that gives these replies (status, headers, body) in turn; yields its URL and what it got."""
    bodies: list[dict[str, Any]] = []
    remaining = list(script)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            status, headers, body = remaining.pop(0)
            self.send_response(status)
            for name, value in {**headers, "Content-Type": "application/json"}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", bodies
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def ask(endpoint: Endpoint, *requests: Request, max_in_flight: int = 8) -> list[Completion | Failure]:
    client = ChatClient(endpoint, LocalGate(Limits(), max_in_flight))
    try:
        return list(await asyncio.gather(*(client.complete(request) for request in requests)))
    finally:
        await client.close()


def ask_one(faults: Faults, request: Request | None = None, **settings: object) -> tuple[Any, OfflineTeacher]:
    with OfflineTeacher(faults=faults) as teacher:
        return run(ask(endpoint_of(teacher, **settings), request or request_note()))[0], teacher


def test_a_good_answer_is_a_completion_with_its_tokens() -> None:
    reply, teacher = ask_one(Faults())
    assert isinstance(reply, Completion)
    assert CANARY in reply.text
    assert (reply.finish_reason, reply.model, reply.attempts) == ("stop", OFFLINE_MODEL, 1)
    assert reply.prompt_tokens > 100
    assert reply.completion_tokens > 10
    assert teacher.requests_answered == {"note": 1}


@pytest.mark.parametrize(
    ("faults", "reason", "attempts"),
    [
        (Faults(server_error=1.0), "server_error", 2),
        (Faults(disconnect=1.0), "connection", 2),
        (Faults(malformed=1.0), "malformed", 2),
        (Faults(empty=1.0), "empty", 2),
        (Faults(truncation=1.0), "truncated", 2),
        (Faults(content_filter=1.0), "content_filter", 1),
        (Faults(bad_request=1.0), "bad_request", 1),
        (Faults(context_too_long=1.0), "context_too_long", 1),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_trouble_of_one_request_is_a_failure_with_its_reason(
    faults: Faults, reason: str, attempts: int
) -> None:
    reply, teacher = ask_one(faults)
    assert isinstance(reply, Failure)
    assert (reply.reason, reply.attempts) == (reason, attempts)
    assert teacher.requests_received == {"note": attempts}


@pytest.mark.parametrize("fault", ["server_error", "disconnect", "malformed", "empty", "truncation"])
def test_what_passes_at_the_second_try_is_a_completion(fault: str) -> None:
    reply, teacher = ask_one(Faults(failing_attempts=1, **{fault: 1.0}))
    assert isinstance(reply, Completion)
    assert reply.attempts == 2
    assert teacher.faults_met == {fault: 1}


def test_a_hanging_server_is_a_timeout() -> None:
    started = time.monotonic()
    reply, _ = ask_one(Faults(hang=1.0), timeout_seconds=0.3, max_attempts=2)
    assert isinstance(reply, Failure)
    assert (reply.reason, reply.attempts) == ("timeout", 2)
    assert time.monotonic() - started < 5.0


def test_the_tokens_of_discarded_replies_are_counted() -> None:
    once, _ = ask_one(Faults())
    truncated_first, _ = ask_one(Faults(truncation=1.0, failing_attempts=1))
    never, _ = ask_one(Faults(truncation=1.0))
    assert truncated_first.prompt_tokens == 2 * once.prompt_tokens
    assert truncated_first.completion_tokens > once.completion_tokens
    assert never.prompt_tokens == 2 * once.prompt_tokens
    assert never.completion_tokens > 0


def test_a_reply_cut_at_max_tokens_is_asked_for_again_with_twice_as_many() -> None:
    whole, _ = ask_one(Faults())
    length = whole.completion_tokens
    enough, _ = ask_one(Faults(), request_note(max_tokens=length // 2 + 1))
    assert isinstance(enough, Completion)
    assert (enough.text, enough.attempts) == (whole.text, 2)
    too_few, _ = ask_one(Faults(), request_note(max_tokens=length // 4))
    assert isinstance(too_few, Failure)
    assert too_few.reason == "truncated"


def test_a_cut_reply_is_an_answer_where_the_caller_says_so() -> None:
    reply, teacher = ask_one(Faults(), request_note(max_tokens=5, accept_truncated=True))
    assert isinstance(reply, Completion)
    assert (reply.finish_reason, reply.attempts) == ("length", 1)
    assert teacher.requests_received == {"note": 1}


def test_no_text_is_an_answer_where_the_caller_says_so() -> None:
    reply, _ = ask_one(Faults(empty=1.0), request_note(accept_empty=True))
    assert isinstance(reply, Completion)
    assert (reply.text, reply.attempts) == ("", 1)


def test_a_rate_limit_is_waited_out_and_consumes_no_attempt() -> None:
    requests = [request_note(f"{REPORT} Case {number}.") for number in range(6)]
    with OfflineTeacher(faults=Faults(requests_per_minute=120)) as teacher:
        started = time.monotonic()
        replies = run(ask(endpoint_of(teacher, max_attempts=1), *requests))
        elapsed = time.monotonic() - started
    assert all(isinstance(reply, Completion) for reply in replies)
    refused = sum(teacher.requests_received.values()) - sum(teacher.requests_answered.values())
    assert refused > 0, "the limit was never met"
    # Two at once, then waits of a whole second, as Retry-After says.
    assert elapsed >= 1.0
    assert refused <= 12, "the requests did not pause together"


def test_no_request_is_sent_before_retry_after_is_over() -> None:
    with OfflineTeacher(faults=Faults(requests_per_minute=60)) as teacher:

        async def scenario() -> float:
            client = ChatClient(endpoint_of(teacher), LocalGate(Limits(), 4))
            await client.complete(request_note())
            started = time.monotonic()
            await asyncio.gather(client.complete(request_note()), client.complete(request_note()))
            await client.close()
            return time.monotonic() - started

        elapsed = run(scenario())
    assert elapsed >= 1.0
    # Each waits once or twice; a client that hammers would be refused dozens of times.
    assert teacher.requests_received["note"] <= 8


@pytest.mark.parametrize("max_in_flight", [1, 3])
def test_at_most_so_many_requests_are_in_flight_as_allowed(max_in_flight: int) -> None:
    requests = [request_note(f"{REPORT} Case {number}.") for number in range(8)]
    with OfflineTeacher(faults=Faults(latency_seconds=0.1)) as teacher:
        run(ask(endpoint_of(teacher), *requests, max_in_flight=max_in_flight))
    assert teacher.most_in_flight == max_in_flight


@pytest.mark.parametrize("max_in_flight", [0, 150])
def test_more_than_a_hundred_requests_are_in_flight_where_allowed(max_in_flight: int) -> None:
    requests = [request_note(f"{REPORT} Case {number}.") for number in range(150)]
    with OfflineTeacher(faults=Faults(latency_seconds=1.5)) as teacher:
        run(ask(endpoint_of(teacher, timeout_seconds=60.0), *requests, max_in_flight=max_in_flight))
    assert teacher.most_in_flight > 100


@pytest.mark.parametrize(
    ("settings", "faults", "expected"),
    [
        ({"api_key": f"{KEY}-wrong"}, Faults(), "API key"),
        ({"api_key": KEY, "model": "gpt-unknown"}, Faults(), "gpt-unknown"),
        ({"api_key": KEY}, Faults(no_quota=1.0), "quota"),
        ({"api_key": KEY, "extra_body": {"top_k": 3}}, Faults(), "top_k"),
    ],
    ids=["wrong key", "unknown model", "no quota", "parameter that the model has not"],
)
def test_trouble_of_the_endpoint_ends_the_run_without_giving_anything_away(
    settings: dict[str, Any], faults: Faults, expected: str
) -> None:
    with OfflineTeacher(api_key=KEY, faults=faults) as teacher:
        endpoint = Endpoint(**{"base_url": teacher.base_url, "model": OFFLINE_MODEL, **settings})
        with pytest.raises(EndpointError) as caught:
            run(ask(endpoint, request_note()))
        assert expected in str(caught.value)
        assert f"127.0.0.1:{teacher.port}" in str(caught.value)
        _assert_gives_nothing_away(caught.value)
        _assert_gives_nothing_away(pickle.loads(pickle.dumps(caught.value)))


def _assert_gives_nothing_away(error: BaseException) -> None:
    link: BaseException | None = error
    while link is not None:
        assert KEY not in f"{link!s} {link!r}"
        assert CANARY not in f"{link!s} {link!r}"
        link = link.__cause__ or link.__context__


def test_no_log_holds_a_note_or_a_key(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    faults = Faults(server_error=0.5, malformed=0.5, failing_attempts=1)
    with OfflineTeacher(api_key=KEY, faults=faults) as teacher:
        endpoint = endpoint_of(teacher, api_key=KEY)
        replies = run(ask(endpoint, *(request_note(f"{REPORT} Case {number}.") for number in range(5))))
    assert any(isinstance(reply, Completion) for reply in replies)
    assert CANARY not in caplog.text
    assert KEY not in caplog.text


def test_an_endpoint_tells_neither_its_key_nor_its_headers() -> None:
    config = EndpointConfig(base_url="http://localhost:1/v1", headers={"X-Key": KEY}, model="m")
    endpoint = Endpoint.from_config(config, config.base_url, KEY)
    for shown in (repr(endpoint), str(vars(endpoint)), str(asdict(endpoint)), f"{endpoint}"):
        assert KEY not in shown
    assert endpoint.host == "localhost:1"
    for same in (endpoint, pickle.loads(pickle.dumps(endpoint)), replace(endpoint)):
        assert same == endpoint
        assert (same.api_key, same.headers) == (KEY, {"X-Key": KEY})
    assert endpoint != replace(endpoint, api_key="other")


def test_the_key_of_the_environment_is_not_sent_to_an_endpoint_without_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with OfflineTeacher(api_key=KEY) as teacher, pytest.raises(EndpointError, match="API key"):
        run(ask(endpoint_of(teacher), request_note()))


def test_a_running_endpoint_passes_the_check() -> None:
    with OfflineTeacher(api_key=KEY) as teacher:
        assert run(check_endpoint(endpoint_of(teacher, api_key=KEY))) is None


def test_the_check_names_a_wrong_key_at_once() -> None:
    with OfflineTeacher(api_key=KEY) as teacher, pytest.raises(EndpointError, match="refuses the API key"):
        run(check_endpoint(endpoint_of(teacher, api_key="other")))


def test_the_check_says_where_nothing_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(EndpointError, match=rf"127\.0\.0\.1:{port} cannot be reached: nothing listens there"):
        run(check_endpoint(Endpoint(f"http://127.0.0.1:{port}/v1", "m")))


def test_the_check_says_that_a_host_name_is_not_known() -> None:
    with pytest.raises(EndpointError, match=r"nowhere\.invalid.*the host name is not known"):
        run(check_endpoint(Endpoint("http://nowhere.invalid/v1", "m")))


def test_an_unreachable_endpoint_is_a_failure_of_the_row() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    [reply] = run(ask(Endpoint(f"http://127.0.0.1:{port}/v1", "m", max_attempts=2), request_note()))
    assert isinstance(reply, Failure)
    assert (reply.reason, reply.attempts) == ("connection", 2)


def test_many_turns_reach_the_server() -> None:
    turns = (Message("system", "Be brief."), *render_note_prompt(REPORT))
    reply, _ = ask_one(Faults(), Request("note", turns, 0.0, 512))
    assert isinstance(reply, Completion)


def test_an_unknown_price_is_not_a_price_of_zero() -> None:
    from asclepius_ray.chat.prices import cost_usd

    price = PriceConfig(input_usd_per_million_tokens=2.0, output_usd_per_million_tokens=8.0)
    assert cost_usd(None, 10, 10) is None
    assert cost_usd(price, 1_000_000, 500_000) == pytest.approx(6.0)
    assert cost_usd(price, 0, 0) == 0.0


GOOD = {"choices": [{"message": {"content": "fine"}, "finish_reason": "stop"}]}


def test_a_redirect_takes_no_note_to_another_host() -> None:
    with OfflineTeacher() as elsewhere:
        target = {"Location": f"{elsewhere.base_url}/chat/completions"}
        with scripted_server((307, target, {})) as (url, _), pytest.raises(EndpointError, match="HTTP 307"):
            run(ask(Endpoint(url, OFFLINE_MODEL), request_note()))
        assert elsewhere.requests_received == {}


def test_a_model_that_wants_max_completion_tokens_gets_them() -> None:
    refused = {"error": {"code": "unsupported_parameter", "param": "max_tokens", "message": CANARY}}
    with scripted_server((400, {}, refused), (200, {}, GOOD), (200, {}, GOOD)) as (url, bodies):

        async def scenario() -> list[Completion | Failure]:
            client = ChatClient(Endpoint(url, "m"), LocalGate(Limits(), 1))
            replies = [await client.complete(request_note()) for _ in range(2)]
            await client.close()
            return replies

        replies = run(scenario())
    assert all(isinstance(reply, Completion) for reply in replies)
    names = [sorted(name for name in body if name.startswith("max")) for body in bodies]
    assert names == [["max_tokens"], ["max_completion_tokens"], ["max_completion_tokens"]]


def test_a_reply_without_usage_has_estimated_tokens() -> None:
    with scripted_server((200, {}, GOOD)) as (url, _):
        [reply] = run(ask(Endpoint(url, "m"), request_note()))
    assert isinstance(reply, Completion)
    assert reply.is_usage_estimated
    assert reply.prompt_tokens > 100
    assert reply.completion_tokens == 1


def test_the_error_words_of_the_server_are_never_repeated() -> None:
    refused = {"error": {"code": "unsupported_value", "param": "top_k", "message": f"{CANARY} {KEY}"}}
    with scripted_server((400, {}, refused)) as (url, _), pytest.raises(EndpointError) as caught:
        run(ask(Endpoint(url, "m", api_key=KEY, extra_body={"top_k": 20}), request_note()))
    assert "'top_k'" in str(caught.value)
    _assert_gives_nothing_away(caught.value)


def test_retry_after_is_honoured_in_milliseconds_and_after_a_server_error() -> None:
    busy = {"error": {"code": "rate_limit_exceeded"}}
    script = [(429, {"Retry-After-Ms": "700"}, busy), (503, {"Retry-After": "1"}, {}), (200, {}, GOOD)]
    started = time.monotonic()
    with scripted_server(*script) as (url, bodies):
        [reply] = run(ask(Endpoint(url, "m", max_attempts=2), request_note()))
    assert isinstance(reply, Completion)
    assert len(bodies) == 3
    elapsed = time.monotonic() - started
    assert elapsed >= 1.7


def test_the_time_in_the_queue_is_not_held_against_a_request() -> None:
    async def ask_in_a_queue(endpoint: Endpoint) -> Completion | Failure:
        client = ChatClient(endpoint, LocalGate(Limits(requests_per_minute=30), 8))
        try:
            return await client.complete(request_note(), patience=Patience(3.0))
        finally:
            await client.close()

    faults = Faults(server_error=1.0, failing_attempts=2)
    with OfflineTeacher(faults=faults) as teacher:
        reply = run(ask_in_a_queue(endpoint_of(teacher, max_attempts=6)))
    assert isinstance(reply, Completion), (
        "it has waited four seconds for its turn, and lost half a second by its own fault"
    )
    assert reply.attempts == 3


def test_a_server_that_asks_for_hours_after_an_error_ends_the_row_at_its_deadline() -> None:
    async def ask_with_patience(endpoint: Endpoint) -> Completion | Failure:
        client = ChatClient(endpoint, LocalGate(Limits(), 1))
        try:
            return await asyncio.wait_for(client.complete(request_note(), patience=Patience(60.0)), 10)
        finally:
            await client.close()

    with scripted_server((503, {"Retry-After": "3600"}, {})) as (url, bodies):
        reply = run(ask_with_patience(Endpoint(url, "m", max_attempts=6)))
    assert isinstance(reply, Failure)
    assert reply.reason == "server_error"
    assert len(bodies) == 1


@pytest.mark.parametrize(("idle_seconds", "attempts"), [(0.3, 1), (60.0, 2)], ids=["given up", "kept"])
def test_a_connection_is_given_up_before_the_server_does_so(
    idle_seconds: float, attempts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that the server has forgotten costs an attempt, which may have been charged."""
    assert connection.LONGEST_IDLE_SECONDS < 5.0, "after so long uvicorn gives a connection up"
    monkeypatch.setattr(connection, "LONGEST_IDLE_SECONDS", idle_seconds)
    body = json.dumps(GOOD).encode()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answered_at = 0.0
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
                if answered_at and time.monotonic() - answered_at > 0.5:
                    break
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
                answered_at = time.monotonic()
        writer.transport.abort()

    async def scenario() -> Completion | Failure:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        client = ChatClient(Endpoint(url, "m"), LocalGate(Limits(), 1))
        await client.complete(request_note())
        await asyncio.sleep(0.8)
        reply = await client.complete(request_note())
        await client.close()
        server.close()
        return reply

    assert run(scenario()).attempts == attempts
