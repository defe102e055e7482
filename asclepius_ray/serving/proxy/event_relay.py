"""One HTTP answer on its way from a replica to its client: whole events go on; a cut ends as an error event.

A replica that dies in the middle of a stream leaves its client with half an event and a broken connection.
Whoever stands between still holds the client's connection, and can say what happened in the stream itself.
"""

import json

_HEAD_END = b"\r\n\r\n"
_EVENT_END = b"\n\n"
_LAST_CHUNK = b"0\r\n\r\n"
LONGEST_HEAD_BYTES = 64 << 10
ERROR_EVENT = (
    b"data: %s\n\n"
    % json.dumps(
        {
            "error": {
                "message": "The replica that answered has ended; try again.",
                "type": "server_error",
                "param": None,
                "code": "engine_error",
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
        if self._has_head:
            return self._whole_events()
        head, found, _ = self._raw.partition(_HEAD_END)
        if not found and len(self._raw) <= LONGEST_HEAD_BYTES:
            return b""
        self._has_head = True
        self._is_stream = bool(found) and _is_event_stream(head)
        if not self._is_stream:
            passed, self._raw = self._raw, b""
            return passed
        self._raw = self._raw[len(head) + len(found) :]
        return head + found + self._whole_events()

    def finish(self) -> bytes:
        """What ends the answer, once the replica's connection is closed."""
        if not self._is_stream or self.is_finished:
            return b""
        return _chunk(ERROR_EVENT) + _LAST_CHUNK

    def _whole_events(self) -> bytes:
        while not self.is_finished and (piece := self._next_chunk()) is not None:
            self.is_finished = not piece
            self._events += piece
        end = len(self._events) if self.is_finished else self._events.rfind(_EVENT_END) + len(_EVENT_END)
        if self.is_finished:
            rest, self._events = self._events, b""
            return (_chunk(rest) if rest else b"") + _LAST_CHUNK
        if end < len(_EVENT_END):
            return b""
        whole, self._events = self._events[:end], self._events[end:]
        return _chunk(whole)

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
