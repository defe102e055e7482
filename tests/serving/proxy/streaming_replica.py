"""A small HTTP server in a replica's place: python streaming_replica.py PORT.

GET is answered 200 with the number of open streams. POST /headers answers the request's headers as JSON;
every other POST streams events, the border of a chunk in the middle of each event.
"""

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PAUSE_SECONDS = 0.01
EVENT = b'data: {"number": %d, "text": "zebrafinch"}\n\n'
DONE = b"data: [DONE]\n\n"
NUM_EVENTS_HEADER = "x-num-events"


class Replica(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    num_open = 0

    def do_GET(self) -> None:
        self._answer(str(Replica.num_open).encode())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/headers":
            self._answer(json.dumps([[name.lower(), value] for name, value in self.headers.items()]).encode())
            return
        Replica.num_open += 1
        try:
            self._stream(int(self.headers.get(NUM_EVENTS_HEADER, "2000")))
        finally:
            Replica.num_open -= 1

    def log_message(self, *_: object) -> None:
        """Nothing is written to standard error."""

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, num_events: int) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("transfer-encoding", "chunked")
        self.send_header("x-replica", str(os.getpid()))
        self.end_headers()
        rest = b""
        for number in range(num_events):
            event = rest + EVENT % number
            self._chunk(event[:-5])
            rest = event[-5:]
            time.sleep(PAUSE_SECONDS)
        self._chunk(rest + DONE)
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))


class Server(ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """A client that leaves, as HAProxy after each check, is no trouble; any other shows in the test."""


if __name__ == "__main__":
    Server(("127.0.0.1", int(sys.argv[1])), Replica).serve_forever()
