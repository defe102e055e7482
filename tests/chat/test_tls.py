"""A real https endpoint whose certificate a house authority has signed, and a real proxy before it."""

import asyncio
import datetime
import ipaddress
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from asclepius_ray.chat.client import ChatClient, check_endpoint
from asclepius_ray.chat.clinical import ask_clinical
from asclepius_ray.chat.connection import CA_VARIABLES
from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.chat.exchange import Completion, Failure, Request
from asclepius_ray.chat.gate import LocalGate
from asclepius_ray.chat.limiter import Limits
from asclepius_ray.errors import ConfigError, EndpointError
from asclepius_ray.records import Message

HOST = "teacher.example.org"
CANARY = "kryptonithemia"
REPLY = {
    "answer": "by https",
    "choices": [{"message": {"content": "by https"}, "finish_reason": "stop"}],
}
REQUEST = Request("note", (Message("user", CANARY),), 1.0, 50)


@dataclass(frozen=True)
class Secured:
    """The server's port, and the file with the certificate of the authority that has signed its own."""

    port: int
    authority: Path


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _certificate(
    subject: str, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey, is_authority: bool
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName(HOST), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name("house authority"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
    )
    if not is_authority:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(signer, hashes.SHA256())


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("certificates")
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    pem = serialization.Encoding.PEM
    authority = _certificate("house authority", authority_key, authority_key, is_authority=True)
    (folder / "authority.pem").write_bytes(authority.public_bytes(pem))
    own = _certificate(HOST, key, authority_key, is_authority=False).public_bytes(pem)
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "server.pem").write_bytes(private + own)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._reply()

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self._reply()

        def _reply(self) -> None:
            body = json.dumps(REPLY).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield Secured(server.server_port, folder / "authority.pem")
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*CA_VARIABLES, "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def ask(base_url: str, **settings: Any) -> Completion | Failure:
    async def scenario() -> Completion | Failure:
        client = ChatClient(Endpoint(base_url, "m", max_attempts=1, **settings), LocalGate(Limits(), 1))
        try:
            return await client.complete(REQUEST)
        finally:
            await client.close()

    return asyncio.run(asyncio.wait_for(scenario(), 30))


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_the_authority_of_the_environment_is_trusted(
    secured: Secured, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, str(secured.authority))
    base_url = f"https://127.0.0.1:{secured.port}/v1"
    reply = ask(base_url)
    assert isinstance(reply, Completion)
    assert reply.text == "by https"
    assert asyncio.run(check_endpoint(Endpoint(base_url, "m"))) is None


def test_without_it_the_certificate_is_refused_and_the_check_says_so(secured: Secured) -> None:
    base_url = f"https://127.0.0.1:{secured.port}/v1"
    with pytest.raises(EndpointError, match="its certificate is not accepted"):
        asyncio.run(check_endpoint(Endpoint(base_url, "m")))
    reply = ask(base_url)
    assert isinstance(reply, Failure)
    assert reply.reason == "connection"


def test_a_trusted_certificate_of_another_host_is_refused(
    secured: Secured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(secured.authority))
    with pytest.raises(EndpointError, match="its certificate is not accepted"):
        asyncio.run(check_endpoint(Endpoint(f"https://localhost:{secured.port}/v1", "m")))


@pytest.mark.parametrize("content", [None, b"no certificate"], ids=["missing", "something else"])
def test_a_bundle_that_is_no_use_is_named_and_not_ignored(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content is not None:
        (tmp_path / "bundle.pem").write_bytes(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "bundle.pem"))
    with pytest.raises(ConfigError, match=r"SSL_CERT_FILE names the certificates .*bundle\.pem"):
        ask("https://127.0.0.1:9/v1")


@contextmanager
def tunnel_to(port: int) -> Iterator[tuple[str, list[str], bytearray]]:
    """A proxy that connects whatever it is asked for to one local port: its address, the heads with which it
    was asked, and all bytes that it has passed on to the server."""
    asked: list[str] = []
    passed = bytearray()
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, sink: socket.socket, seen: bytearray | None) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if seen is not None:
                    seen.extend(data)
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                head = b""
                while b"\r\n\r\n" not in head:
                    head += client.recv(65536)
                asked.append(head.decode())
                server = socket.create_connection(("127.0.0.1", port))
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                threading.Thread(target=pump, args=(client, server, passed), daemon=True).start()
                threading.Thread(target=pump, args=(server, client, None), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked, passed
    listener.close()


def test_a_proxy_of_the_environment_is_a_tunnel_that_sees_the_host_and_no_note(
    secured: Secured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(secured.authority))
    with tunnel_to(secured.port) as (address, asked, passed):
        monkeypatch.setenv("HTTPS_PROXY", address)
        reply = ask(f"https://{HOST}/v1", api_key="sk-key", headers={"X-Token": "of-the-house"})
        azure = ask(f"https://{HOST}/v1", api_key="sk-key", api_version="2026-01-01")
        assert ask_clinical(f"https://{HOST}/v1", "sk-key", CANARY, "question") == "by https"
    assert isinstance(reply, Completion)
    assert isinstance(azure, Completion)
    assert [head.split("\r\n")[0] for head in asked] == [f"CONNECT {HOST}:443 HTTP/1.1"] * 3
    assert not [head for head in asked if "sk-key" in head or "of-the-house" in head]
    assert len(passed) > 500
    assert CANARY.encode() not in passed


def test_a_host_of_no_proxy_is_asked_directly(secured: Secured, monkeypatch: pytest.MonkeyPatch) -> None:
    with tunnel_to(secured.port) as (address, asked, _passed):
        monkeypatch.setenv("HTTPS_PROXY", address)
        monkeypatch.setenv("NO_PROXY", "localhost,*.example.org")
        reply = ask(f"https://{HOST}/v1")
    assert isinstance(reply, Failure)
    assert asked == []


def test_a_proxy_that_does_not_let_through_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing listens there.
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    with pytest.raises(EndpointError, match="the proxy that the environment names"):
        asyncio.run(check_endpoint(Endpoint(f"https://{HOST}/v1", "m", max_attempts=1)))
