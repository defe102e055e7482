"""The metadata services of AWS and GCP as a machine sees them, over real HTTP, in threads."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

AWS_TOKEN_HEADER = "X-aws-ec2-metadata-token"


class MetadataServer:
    """What stands there; a test changes it while it is asked."""

    def __init__(self) -> None:
        self.clouds = {"aws", "gcp"}
        self.values: dict[str, str] = {"preempted": "FALSE", "maintenance-event": "NONE"}
        """By the last part of its path, for AWS as for GCP; AWS answers 404 for what is not there."""
        self.statuses: dict[str, int] = {}
        """What is answered instead, by the last part of the path."""
        self.hangs = False
        self.asked: list[str] = []
        """Method and path of every question."""
        self.headers: list[dict[str, str]] = []
        self.token_number = 0
        self._changed = threading.Condition()
        self._etag = 1
        self._closed = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def put(self, key: str, value: str) -> None:
        with self._changed:
            self.values[key] = value
            self._etag += 1
            self._changed.notify_all()

    def take_away(self, key: str) -> None:
        with self._changed:
            del self.values[key]

    def expire_token(self) -> None:
        self.token_number += 1

    def close(self) -> None:
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method: str, target: str, headers: dict[str, str]) -> tuple[int, str, dict[str, str]]:
        url = urlsplit(target)
        key = url.path.rpartition("/")[2]
        self.asked.append(f"{method} {url.path}")
        self.headers.append(headers)
        if self.hangs:
            self._closed.wait()
        if key in self.statuses:
            return self.statuses[key], "", {}
        is_gcp = url.path.startswith("/computeMetadata/v1/")
        if ("gcp" if is_gcp else "aws") not in self.clouds:
            return 404, "", {}
        if is_gcp:
            return self._answer_gcp(key, parse_qs(url.query), headers)
        return self._answer_aws(method, url.path, key, headers)

    def _answer_aws(
        self, method: str, path: str, key: str, headers: dict[str, str]
    ) -> tuple[int, str, dict[str, str]]:
        token = f"token-{self.token_number}"
        if (method, path) == ("PUT", "/latest/api/token"):
            return (200, token, {}) if "X-aws-ec2-metadata-token-ttl-seconds" in headers else (400, "", {})
        if headers.get(AWS_TOKEN_HEADER) != token:
            return 401, "", {}
        known = (
            "/latest/meta-data/spot/instance-action",
            "/latest/meta-data/events/recommendations/rebalance",
        )
        return (200, self.values[key], {}) if path in known and key in self.values else (404, "", {})

    def _answer_gcp(
        self, key: str, query: dict[str, list[str]], headers: dict[str, str]
    ) -> tuple[int, str, dict[str, str]]:
        if headers.get("Metadata-Flavor") != "Google":
            return 403, "", {}
        with self._changed:
            if "wait_for_change" in query:
                # Without an etag the service waits, whatever stands there already.
                last = query.get("last_etag", [str(self._etag)])[0]
                timeout = float(query["timeout_sec"][0])
                self._changed.wait_for(lambda: str(self._etag) != last, timeout)
            return 200, self.values[key], {"Metadata-Flavor": "Google", "ETag": str(self._etag)}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        answer = self.answer

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, text, headers = answer(self.command, self.path, dict(self.headers))
                with suppress(OSError):
                    self.send_response(status)
                    for name, value in headers.items() | {"Content-Length": str(len(text))}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(text.encode())

            do_PUT = do_GET

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@contextmanager
def metadata_server() -> Iterator[MetadataServer]:
    server = MetadataServer()
    try:
        yield server
    finally:
        server.close()
