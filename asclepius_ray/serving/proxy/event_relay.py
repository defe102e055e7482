"""One HTTP answer on its way from a replica to its client: whole events go on; a cut ends as an error event.

A replica that dies in the middle of a stream leaves its client with half an event and a broken connection.
Whoever stands between still holds the client's connection, and can say what happened in the stream itself.
"""

import json
import re

_HEAD_END = b"\r\n\r\n"
_EVENT_END = b"\n\n"
_LAST_CHUNK = b"0\r\n\r\n"
# After 101 Switching Protocols no further head follows.
_PASSING_STATUS = re.compile(rb"HTTP/1\.[01] 1(?!01)\d\d\b")
LONGEST_HEAD_BYTES = 64 << 10
ERROR_EVENT = (
    b"data: %s\n\n"
    % json.dumps(
        {
            "error": {
                "message": "The replica that answered has ended; try again.",
                "type": "server_error",
                "param": None,
                "code": "engine_unavailable",
            }
        }
    ).encode()
)


class EventRelay:
    """Fed with the bytes of one answer, gives the bytes to send on.

    An event stream in chunks is taken apart and sent on event by event; every other answer passes as it is.
    """

    def __init__(self) -> None:
        self._raw = b""
        self._events = b""
        self._has_head = False
        self._is_stream = False
        self.is_finished = False
        """Whether the stream came to its own end."""

    def feed(self, data: bytes) -> bytes:
        """What can be sent on now."""
        if self._has_head and not self._is_stream:
            return data
        self._raw += data
        passed = b"" if self._has_head else self._heads()
        if self._is_stream:
            return passed + self._whole_events()
        if self._has_head:
            rest, self._raw = self._raw, b""
            return passed + rest
        return passed

    def finish(self) -> bytes:
        """What ends the answer, once the replica's connection is closed."""
        if not self._is_stream or self.is_finished:
            return b""
        return _chunk(ERROR_EVENT) + _LAST_CHUNK

    def _heads(self) -> bytes:
        """The heads that are here whole: those in passing, as `100 Continue`, and the answer's own."""
        passed = b""
        while not self._has_head:
            head, found, rest = self._raw.partition(_HEAD_END)
            if not found:
                self._has_head = len(self._raw) > LONGEST_HEAD_BYTES
                break
            self._raw = rest
            passed += head + found
            self._has_head = not _PASSING_STATUS.match(head)
            self._is_stream = self._has_head and _is_event_stream(head)
        return passed

    def _whole_events(self) -> bytes:
        if self.is_finished:
            return b""
        while not self.is_finished and (piece := self._next_chunk()) is not None:
            self.is_finished = not piece
            self._events += piece
        if self.is_finished:
            rest, self._events = self._events, b""
            return (_chunk(rest) if rest else b"") + _LAST_CHUNK
        whole, end, rest = self._events.rpartition(_EVENT_END)
        if not end:
            return b""
        self._events = rest
        return _chunk(whole + end)

    def _next_chunk(self) -> bytes | None:
        """The next whole chunk, empty for the last one; None while its end is not here yet."""
        line, found, _ = self._raw.partition(b"\r\n")
        if not found:
            return None
        start = len(line) + 2
        end = start + int(line.partition(b";")[0], 16)
        if len(self._raw) < end + 2:
            return None
        piece, self._raw = self._raw[start:end], self._raw[end + 2 :]
        return piece


def _is_event_stream(head: bytes) -> bool:
    lines = [line.lower().replace(b" ", b"") for line in head.split(b"\r\n")]
    is_events = any(line.startswith(b"content-type:text/event-stream") for line in lines)
    return is_events and b"transfer-encoding:chunked" in lines


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
