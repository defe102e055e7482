"""What reaches a provider: the address, the headers and the body of real HTTP requests."""

import asyncio
import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from asclepius_ray.chat.client import ChatClient, check_endpoint
from asclepius_ray.chat.config import OFFLINE_MODEL, EndpointConfig, SamplingConfig
from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.chat.exchange import Completion, Failure, Request
from asclepius_ray.chat.gate import LocalGate, Patience
from asclepius_ray.chat.limiter import Limits
from asclepius_ray.chat.offline.faults import Faults
from asclepius_ray.chat.offline.server import OfflineTeacher
from asclepius_ray.errors import ConfigError, EndpointError
from asclepius_ray.prompts.rendering import render_note_prompt
from asclepius_ray.records import CaseReport, Message
from asclepius_ray.synthesis.question_pool import QuestionPool
from asclepius_ray.synthesis.steps import Demands
from asclepius_ray.synthesis.walk import Walk

KEY = "sk-test-0815"
ANSWER = {
    "choices": [{"message": {"content": "Aspirin was given, and he went home."}, "finish_reason": "stop"}]
}


@dataclass
class Wire:
    """A provider that takes everything, and what it was sent."""

    base_url: str = ""
    posts: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)
    """Path with query, headers by their names in lower case, body."""
    gets: list[str] = field(default_factory=list)
    refusals: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    """Given first, in order."""


@pytest.fixture
def wire() -> Iterator[Wire]:
    found = Wire()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.gets.append(self.path)
            self._reply(404, {})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            headers = {name.lower(): value for name, value in self.headers.items()}
            found.posts.append((self.path, headers, body))
            self._reply(*(found.refusals.pop(0) if found.refusals else (200, ANSWER)))

        def _reply(self, status: int, body: dict[str, Any]) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    found.base_url = f"http://127.0.0.1:{server.server_port}"
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


def endpoint_of(config: EndpointConfig) -> Endpoint:
    return Endpoint.from_config(config, config.base_url, KEY)


def ask(endpoint: Endpoint, *requests: Request) -> list[Completion | Failure]:
    """One after the other, with one client."""

    async def scenario() -> list[Completion | Failure]:
        client = ChatClient(endpoint, LocalGate(Limits(), 1))
        try:
            return [await client.complete(request) for request in requests]
        finally:
            await client.close()

    return asyncio.run(scenario())


QUESTION = Request("question", (Message("system", "Be brief."), Message("user", "Which drug?")), 0.3, 77)


def test_each_step_is_asked_with_its_own_sampling(wire: Wire) -> None:
    sampling = {
        "note": SamplingConfig(temperature=1.2, max_tokens=2048),
        "question": SamplingConfig(temperature=0.7, max_tokens=300),
        "answer": SamplingConfig(temperature=0.1, max_tokens=1500),
    }
    config = EndpointConfig(base_url=f"{wire.base_url}/v1", model="m", sampling=sampling)

    class Direct:
        """Asks without a desk: what is looked at here is what is asked."""

        async def complete(self, request: Request, patience: Patience) -> Completion | Failure:
            client = ChatClient(endpoint_of(config), LocalGate(Limits(), 1))
            try:
                return await client.complete(request)
            finally:
                await client.close()

    async def no_pool() -> QuestionPool:
        return QuestionPool()

    report = CaseReport(0, "1-1", 1, "1-1", "A man with pain.", None, "")
    walk = Walk(endpoint_of(config), seed=7, demands=Demands(1), text_is_note=False)
    result = asyncio.run(walk.walk_row(report, Direct(), no_pool))
    assert result.state == "ok"
    assert [(body["temperature"], body["max_tokens"]) for _path, _headers, body in wire.posts] == [
        (1.2, 2048),
        (0.7, 300),
        (0.1, 1500),
    ]


def test_extra_fields_and_headers_go_with_every_request(wire: Wire) -> None:
    config = EndpointConfig(
        base_url=f"{wire.base_url}/v1",
        model="m",
        extra_body={"top_k": 20, "chat_template_kwargs": {"enable_thinking": False}},
        headers={"X-Project": "notes", "OpenAI-Organization": "ours"},
    )
    ask(endpoint_of(config), QUESTION, QUESTION)
    for path, headers, body in wire.posts:
        assert path == "/v1/chat/completions"
        assert headers["authorization"] == f"Bearer {KEY}"
        assert (headers["x-project"], headers["openai-organization"]) == ("notes", "ours")
        assert body == {
            "model": "m",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Which drug?"},
            ],
            "temperature": 0.3,
            "max_tokens": 77,
            "top_k": 20,
            "chat_template_kwargs": {"enable_thinking": False},
        }
    assert len(wire.posts) == 2


def test_azure_gets_its_address_its_version_and_the_key_where_it_looks_for_it(wire: Wire) -> None:
    config = EndpointConfig(
        base_url=f"{wire.base_url}/openai/deployments/my-gpt", model="gpt-4o", api_version="2024-10-21"
    )
    [reply] = ask(endpoint_of(config), QUESTION)
    assert isinstance(reply, Completion)
    [(path, headers, body)] = wire.posts
    assert path == "/openai/deployments/my-gpt/chat/completions?api-version=2024-10-21"
    assert headers["api-key"] == KEY
    assert "authorization" not in headers
    assert body["max_tokens"] == 77
    # It has no list of models at that address, and that is no reason to stop.
    asyncio.run(check_endpoint(endpoint_of(config)))
    assert wire.gets == ["/openai/deployments/my-gpt/models?api-version=2024-10-21"]


def test_a_token_of_azures_directory_goes_where_the_run_file_puts_it(wire: Wire) -> None:
    config = EndpointConfig(
        base_url=f"{wire.base_url}/openai/deployments/my-gpt",
        model="gpt-4o",
        api_version="2024-10-21",
        headers={"Authorization": "Bearer of the directory"},
    )
    ask(Endpoint.from_config(config, config.base_url, ""), QUESTION)
    [(_path, headers, _body)] = wire.posts
    assert headers["authorization"] == "Bearer of the directory"
    assert "api-key" not in headers


def test_nothing_of_the_environment_is_told_to_the_provider(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "AZURE_OPENAI_API_KEY"):
        monkeypatch.setenv(name, "from-the-environment")
    custom = "X-Secret: from-the-environment\nAuthorization: Bearer from-the-environment"
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", custom)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://from-the-environment.invalid/v1")
    ask(Endpoint(f"{wire.base_url}/v1", "m"), QUESTION)
    [(_path, headers, _body)] = wire.posts
    assert "from-the-environment" not in json.dumps(headers)
    assert set(headers) == {
        "host", "accept", "accept-encoding", "user-agent", "authorization", "content-type", "content-length",
    }  # fmt: skip
    assert headers["user-agent"] == "asclepius-ray"


@pytest.mark.parametrize(
    "refusal",
    [
        {"code": "unsupported_value", "param": "temperature", "message": "Only the default (1) value."},
        {"code": None, "param": None, "message": "`temperature` is deprecated for this model."},
        {"message": "Unsupported parameter: 'temperature' is not supported with this model."},
    ],
    ids=["openai", "anthropic", "in words alone"],
)
def test_a_model_that_takes_no_temperature_is_asked_without_and_the_user_is_told_once(
    wire: Wire, refusal: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    wire.refusals = [(400, {"error": refusal})]
    config = EndpointConfig(base_url=f"{wire.base_url}/v1", model="m")
    with caplog.at_level(logging.WARNING):
        replies = ask(endpoint_of(config), QUESTION, QUESTION, QUESTION)
    assert all(isinstance(reply, Completion) for reply in replies)
    assert ["temperature" in body for _path, _headers, body in wire.posts] == [True, False, False, False]
    assert len([record for record in caplog.records if "takes no temperature" in record.message]) == 1


def test_a_reasoning_model_refuses_both_and_is_asked_with_neither() -> None:
    request = Request("note", tuple(render_note_prompt("A man of 60 had pain and got aspirin.")), 0.5, 900)
    with OfflineTeacher(faults=Faults(refuse_temperature=1, refuse_max_tokens=1)) as teacher:
        replies = ask(Endpoint(teacher.base_url, OFFLINE_MODEL), request, request)
        assert all(isinstance(reply, Completion) for reply in replies)
        assert teacher.requests_received == {"note": 4}


def test_a_value_that_the_model_does_not_take_ends_the_run_by_name(wire: Wire) -> None:
    wire.refusals = [
        (400, {"error": {"code": "invalid_value", "param": "temperature", "message": "too high"}})
    ]
    with pytest.raises(EndpointError, match=r"the parameter 'temperature' as it is set.*sampling"):
        ask(endpoint_of(EndpointConfig(base_url=f"{wire.base_url}/v1", model="m")), QUESTION)


def test_a_row_loses_no_more_time_to_broken_attempts_than_its_deadline_allows(wire: Wire) -> None:
    wire.refusals = [(500, {})] * 50

    async def scenario() -> Completion | Failure:
        config = EndpointConfig(base_url=f"{wire.base_url}/v1", model="m", max_attempts=50)
        client = ChatClient(endpoint_of(config), LocalGate(Limits(), 1))
        try:
            return await client.complete(QUESTION, patience=Patience(2.0))
        finally:
            await client.close()

    reply = asyncio.run(asyncio.wait_for(scenario(), 20))
    assert isinstance(reply, Failure)
    assert reply.reason == "server_error"
    assert 2 <= reply.attempts <= 6


@pytest.mark.parametrize("name", ["Content-Type", "content-length", "Transfer-Encoding"])
def test_a_header_that_says_what_the_body_is_is_refused(name: str) -> None:
    config = EndpointConfig(base_url="http://localhost/v1", model="m", headers={name: "text/plain"})
    with pytest.raises(ConfigError, match=f"headers: '{name}'"):
        endpoint_of(config)
