"""A proxy of the environment gets nothing that stays on this machine or in the cluster."""

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from asclepius_ray.chat import clinical
from asclepius_ray.chat.client import ChatClient
from asclepius_ray.chat.clinical import ask_clinical
from asclepius_ray.chat.config import EndpointConfig
from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.chat.exchange import Completion, Failure, Request
from asclepius_ray.chat.gate import LocalGate
from asclepius_ray.chat.limiter import Limits
from asclepius_ray.chat.offline.server import OfflineTeacher
from asclepius_ray.chat.proxies import is_excepted, proxy_of
from asclepius_ray.errors import ConfigError, EndpointError
from asclepius_ray.prompts.rendering import render_note_prompt

REPLY = {"choices": [{"message": {"content": "by proxy"}, "finish_reason": "stop"}], "answer": "by proxy"}
# No machine has this address of the documents' own network.
NOWHERE = "http://192.0.2.1:9/v1"


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The addresses that a real proxy, named in the environment for everything, was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.rfile.read(int(self.headers["Content-Length"]))
            body = json.dumps(REPLY).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv(name.lower(), f"http://127.0.0.1:{server.server_port}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    yield asked
    server.shutdown()
    thread.join()
    server.server_close()


def ask(config: EndpointConfig, base_url: str) -> Completion | Failure:
    async def scenario() -> Completion | Failure:
        client = ChatClient(Endpoint.from_config(config, base_url, "sk-key"), LocalGate(Limits(), 1))
        try:
            report = "A man of 60 presented with pain for 3 days. He was given aspirin and went home."
            return await client.complete(Request("note", tuple(render_note_prompt(report)), 1.0, 512))
        finally:
            await client.close()

    return asyncio.run(scenario())


def test_a_teacher_on_loopback_is_asked_directly(proxied: list[str]) -> None:
    with OfflineTeacher() as teacher:
        reply = ask(EndpointConfig(base_url=teacher.base_url, model="offline-rules"), teacher.base_url)
    assert isinstance(reply, Completion)
    assert reply.text != "by proxy"
    assert proxied == []


def test_a_teacher_that_the_run_started_on_a_node_is_asked_directly(proxied: list[str]) -> None:
    reply = ask(EndpointConfig(base_url="offline", max_attempts=1, timeout_seconds=0.5), NOWHERE)
    assert isinstance(reply, Failure)
    assert proxied == []


def test_a_teacher_elsewhere_is_asked_through_the_proxy(proxied: list[str]) -> None:
    base_url = "http://teacher.invalid/v1"
    reply = ask(EndpointConfig(base_url=base_url, model="m"), base_url)
    assert isinstance(reply, Completion)
    assert reply.text == "by proxy"
    assert proxied == ["http://teacher.invalid/v1/chat/completions"]


@pytest.mark.parametrize("base_url", ["http://127.0.0.1:9/v1", "http://localhost:9/v1", NOWHERE])
def test_a_served_model_in_the_house_is_asked_directly(
    proxied: list[str], base_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clinical, "TIMEOUT_SECONDS", 0.5)
    with pytest.raises(EndpointError, match="cannot be reached"):
        ask_clinical(base_url, "sk-key", "note", "question")
    assert proxied == []


def test_a_served_model_elsewhere_is_asked_through_the_proxy(proxied: list[str]) -> None:
    assert ask_clinical("http://served.invalid/v1", "sk-key", "note", "question") == "by proxy"
    assert proxied == ["http://served.invalid/v1/clinical/answers"]


@pytest.mark.parametrize(
    ("no_proxy", "address", "excepted"),
    [
        ("*", "https://a.example/v1", True),
        ("localhost, *", "https://a.example/v1", True),
        ("a.example", "https://a.example/v1", True),
        ("a.example", "https://b.a.example/v1", True),
        ("a.example", "https://ba.example/v1", False),
        (".a.example", "https://b.a.example/v1", True),
        ("*.openai.azure.com", "https://mine.openai.azure.com/v1", True),
        ("A.Example.", "https://a.example/v1", True),
        ("a.example:8443", "https://a.example:8443/v1", True),
        ("a.example:8443", "https://a.example/v1", False),
        ("a.example:443", "https://a.example/v1", True),
        ("https://a.example", "https://a.example/v1", True),
        ("http://a.example", "https://a.example/v1", False),
        ("8.8.8.0/24", "https://8.8.8.8/v1", True),
        ("8.8.4.0/24", "https://8.8.8.8/v1", False),
        ("8.8.8.8", "https://8.8.8.8:8443/v1", True),
        ("2606:4700::1111", "https://[2606:4700::1111]/v1", True),
        ("[2606:4700::1111]:8443", "https://[2606:4700::1111]:8443/v1", True),
        ("[2606:4700::1111]:8443", "https://[2606:4700::1111]/v1", False),
        ("2606:4700::/32", "https://[2606:4700::1111]/v1", True),
        ("", "https://a.example/v1", False),
        (",", "https://a.example/v1", False),
    ],
)
def test_no_proxy_covers_hosts_addresses_and_networks(no_proxy: str, address: str, excepted: bool) -> None:
    assert is_excepted(urlsplit(address), no_proxy) is excepted


@pytest.mark.parametrize(
    "proxy", ["socks5://proxy.example:1080", "http://[::1", "http://p..x:1", "http://p:0"]
)
def test_a_proxy_that_is_no_use_is_refused_and_not_repeated(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    monkeypatch.delenv("https_proxy", raising=False)
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(ConfigError, match="HTTPS_PROXY") as caught:
        proxy_of("https://teacher.example.com/v1")
    assert proxy not in str(caught.value)
