"""Asking a served model: what is no answer of ours, and keys that cannot be sent."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from asclepius_ray.chat.clinical import ClinicalAnswer, ClinicalQuestion, ask_clinical, stream_clinical
from asclepius_ray.errors import ConfigError, EndpointError

KEY = "sk-test-0815"
ASKED = ClinicalQuestion("note kryptonithemia", "question")
DELTAS = [{"type": "answer.delta", "delta": "Aspi"}, {"type": "answer.delta", "delta": "rin."}]
DONE = {
    "type": "answer.done",
    "answer": "Aspirin.",
    "usage": {"prompt_tokens": 9, "completion_tokens": 2},
    "seconds": {"total": 0.5},
    "note_was_shortened": False,
    "passages": [{"start": 0, "end": 4, "score": 0.8}],
}
FAILED = {"error": {"message": "kryptonithemia", "code": "engine_error"}}


def events(*bodies: object) -> bytes:
    return b"".join(f"data: {json.dumps(body)}\n\n".encode() for body in bodies)


@contextmanager
def server_of(body: bytes, status: int = 200) -> Iterator[str]:
    """A server that answers everything with this status and body."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Retry-After", "7")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_an_answer_is_given_as_it_is() -> None:
    with server_of(b'{"answer": "Aspirin."}') as url:
        assert ask_clinical(url, KEY, "note", "question") == "Aspirin."


@pytest.mark.parametrize(
    "body",
    [
        b"<html>kryptonithemia</html>",
        b"\xff\xfe",
        b"",
        b"[]",
        b'{"reply": "kryptonithemia"}',
        b'{"answer": 3}',
    ],
)
def test_a_reply_that_is_none_of_ours_names_the_address_and_not_the_reply(body: bytes) -> None:
    with server_of(body) as url, pytest.raises(EndpointError, match="another server") as caught:
        ask_clinical(url, KEY, "note", "question")
    assert url in str(caught.value)
    assert "kryptonithemia" not in str(caught.value)


@pytest.mark.parametrize("key", [f"{KEY}\u00e9", f"{KEY}\nsecond"])
def test_a_key_that_no_header_can_carry_is_not_repeated(key: str) -> None:
    with pytest.raises(ConfigError, match="API key") as caught:
        ask_clinical("http://127.0.0.1:9/v1", key, "note", "question")
    assert KEY not in str(caught.value)
    assert caught.value.__context__ is None


def test_an_address_with_a_password_is_not_repeated() -> None:
    with pytest.raises(ConfigError, match="holds an @") as caught:
        ask_clinical("http://user:hunter2@127.0.0.1:9/v1", KEY, "note", "question")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "http://[::1/v1", "http://127.0.0.1:9/\x00"])
def test_an_address_that_is_none_is_an_error_of_ours(url: str) -> None:
    with pytest.raises((ConfigError, EndpointError)):
        ask_clinical(url, KEY, "note", "question")


def test_a_streamed_answer_comes_in_pieces_and_its_costs_at_last() -> None:
    with server_of(events(*DELTAS, DONE) + b"data: [DONE]\n\n") as url:
        *pieces, answer = stream_clinical(url, KEY, ASKED)
    assert pieces == ["Aspi", "rin."]
    assert answer == ClinicalAnswer("Aspirin.", 9, 2, 0.5, False, ((0, 4),))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (events(DELTAS[0]), "ended before the answer"),
        (events(DELTAS[0], FAILED), r"failed while it answered \(engine_error\)"),
        (events({**DONE, "usage": None}), "another server"),
        (b"data: kryptonithemia\n\n", "another server"),
    ],
)
def test_a_stream_that_does_not_end_in_an_answer_is_an_error_without_its_text(body: bytes, said: str) -> None:
    with server_of(body) as url, pytest.raises(EndpointError, match=said) as caught:
        list(stream_clinical(url, KEY, ASKED))
    assert "kryptonithemia" not in str(caught.value)


def test_a_refusal_is_told_by_its_code_and_when_to_ask_again() -> None:
    with (
        server_of(json.dumps(FAILED).encode(), status=429) as url,
        pytest.raises(EndpointError, match=r"429 \(engine_error\); ask again in 7 s") as caught,
    ):
        list(stream_clinical(url, KEY, ASKED))
    assert "kryptonithemia" not in str(caught.value)
