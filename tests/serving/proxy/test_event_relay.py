"""An answer on its way through the guard: whole events in whatever pieces it comes, words where it is cut."""

import json

import pytest

from asclepius_ray.serving.proxy.event_relay import ERROR_EVENT, LONGEST_HEAD_BYTES, EventRelay

STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"Transfer-Encoding: chunked\r\nx-request-id: 7\r\n\r\n"
)
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nlink: </page.css>\r\n\r\n"
EVENTS = [
    b'data: {"text": "zebrafinch"}\n\n',
    b": still here\n\n",
    "data: müde\r\n\n".encode(),
    b"data: [DONE]\n\n",
]
LAST_CHUNK = b"0\r\n\r\n"
PASSING = pytest.mark.parametrize(
    "passing", [b"", CONTINUE, CONTINUE + EARLY_HINTS], ids=["no", "one", "two"]
)


def chunk(data: bytes, extension: bytes = b"") -> bytes:
    return b"%X%b\r\n%b\r\n" % (len(data), extension, data)


def chunks_of(size: int) -> bytes:
    """All events in chunks of so many bytes, whatever the borders of the events are."""
    body = b"".join(EVENTS)
    return b"".join(chunk(body[start : start + size]) for start in range(0, len(body), size)) + LAST_CHUNK


def sent(answer: bytes, piece_bytes: int) -> tuple[bytes, EventRelay]:
    """What goes on of an answer that comes in pieces of so many bytes."""
    relay = EventRelay()
    pieces = [answer[start : start + piece_bytes] for start in range(0, len(answer), piece_bytes)]
    return b"".join(relay.feed(piece) for piece in pieces), relay


def body_of(data: bytes) -> tuple[bytes, bool]:
    """The content of a chunked body, read strictly, and whether it ended."""
    content = b""
    while data:
        line, found, data = data.partition(b"\r\n")
        assert found, "half a chunk's length was sent on"
        size = int(line, 16)
        assert data[size : size + 2] == b"\r\n", "half a chunk was sent on"
        content, data = content + data[:size], data[size + 2 :]
        if size == 0:
            assert data == b"", "something follows the last chunk"
            return content, True
    return content, False


@PASSING
@pytest.mark.parametrize("piece_bytes", [1, 2, 3, 7, 64, 10_000])
@pytest.mark.parametrize("chunk_bytes", [1, 5, 31, 10_000])
def test_a_whole_stream_arrives_whole_in_whatever_pieces_it_comes(
    passing: bytes, piece_bytes: int, chunk_bytes: int
) -> None:
    head = passing + STREAM_HEAD
    out, relay = sent(head + chunks_of(chunk_bytes), piece_bytes)
    assert out.startswith(head)
    assert body_of(out[len(head) :]) == (b"".join(EVENTS), True)
    assert relay.is_finished
    assert relay.finish() == b""


@PASSING
@pytest.mark.parametrize("chunk_bytes", [5, 10_000])
def test_a_stream_cut_after_any_byte_holds_whole_events_and_ends_in_words(
    passing: bytes, chunk_bytes: int
) -> None:
    head = passing + STREAM_HEAD
    answer = head + chunks_of(chunk_bytes)
    numbers_of_events = set()
    for length in range(len(head), len(answer)):
        out, relay = sent(answer[:length], 11)
        content, has_ended = body_of(out[len(head) :] + relay.finish())
        assert has_ended
        assert content.endswith(ERROR_EVENT)
        before = content[: -len(ERROR_EVENT)]
        num_events = before.count(b"\n\n")
        assert before == b"".join(EVENTS[:num_events])
        numbers_of_events.add(num_events)
    assert numbers_of_events >= {0, len(EVENTS)}


@PASSING
def test_an_answer_cut_within_a_head_gets_nothing_added(passing: bytes) -> None:
    head = passing + STREAM_HEAD
    for length in range(len(head)):
        out, relay = sent(head[:length], 11)
        assert head.startswith(out)
        assert relay.finish() == b""


def test_the_error_event_has_the_code_of_the_front_and_of_the_replica() -> None:
    error = json.loads(ERROR_EVENT.removeprefix(b"data: "))["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["code"] == "engine_unavailable"


def test_an_event_is_sent_on_as_soon_as_it_is_whole() -> None:
    relay = EventRelay()
    assert relay.feed(STREAM_HEAD) == STREAM_HEAD
    assert relay.feed(chunk(EVENTS[0][:-1])) == b""
    assert relay.feed(chunk(EVENTS[0][-1:] + b"data: ha")) == b"%x\r\n%b\r\n" % (len(EVENTS[0]), EVENTS[0])


@pytest.mark.parametrize("ending", [b"0\r\n", b"0;last\r\n", b"000\r\n"])
def test_chunk_extensions_and_trailers_are_left_out(ending: bytes) -> None:
    answer = STREAM_HEAD + chunk(EVENTS[0], b";name=value") + ending + b"server-timing: 1\r\n\r\n"
    for piece_bytes in (1, 9, 1000):
        out, relay = sent(answer, piece_bytes)
        assert body_of(out[len(STREAM_HEAD) :]) == (EVENTS[0], True)
        assert relay.finish() == b""


JSON_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 17\r\n\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(JSON_HEAD + b'{"half": "an answ', id="JSON"),
        pytest.param(CONTINUE + JSON_HEAD + b'{"half": "an answ', id="JSON after a head in passing"),
        pytest.param(STREAM_HEAD.replace(b"event-stream", b"plain") + chunk(b"half"), id="another kind"),
        pytest.param(
            STREAM_HEAD.replace(b"Transfer-Encoding: chunked\r\n", b"") + b"data: x", id="no chunks"
        ),
        pytest.param(b"HTTP/1.1 101 Switching Protocols\r\n\r\n\x81\x05hello", id="another protocol"),
        pytest.param(b"x" * (LONGEST_HEAD_BYTES + 9), id="no head"),
    ],
)
def test_what_is_no_event_stream_passes_byte_for_byte(answer: bytes) -> None:
    for piece_bytes in (1, 13, len(answer)):
        out, relay = sent(answer, piece_bytes)
        assert out == answer
        assert relay.finish() == b""
