"""The calls of a batch endpoint against a server that answers oddly."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from asclepius_ray.chat.batch.calls import BatchCalls, BatchState
from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.errors import EndpointError

BATCH = {"id": "batch_1", "status": "completed", "error": None}


@contextmanager
def server_saying(*bodies: object) -> Iterator[tuple[str, list[str]]]:
    """A server that says these with status 200, one after the other; its address and what it was asked."""
    asked: list[str] = []
    left = list(bodies)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            content = json.dumps(left.pop(0)).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1", asked
    server.shutdown()
    thread.join()
    server.server_close()


def look(base_url: str) -> BatchState:
    async def scenario() -> BatchState:
        calls = BatchCalls(Endpoint(base_url, "m"), lambda line: None)
        try:
            return await asyncio.wait_for(calls.look("batch_1"), 20)
        finally:
            await calls.close()

    return asyncio.run(scenario())


def test_an_error_that_comes_with_status_200_is_tried_again_as_the_error_that_it_is() -> None:
    with server_saying({"error": {"code": 503}}, BATCH) as (base_url, asked):
        assert look(base_url).status == "completed"
    assert len(asked) == 2


@pytest.mark.parametrize(
    "body", [[], "ok", {}, {"id": "batch_1"}, {**BATCH, "metadata": 3}, {**BATCH, "id": 7}],
    ids=["list", "string", "empty", "no status", "metadata", "id"],
)  # fmt: skip
def test_what_is_no_batch_is_said_to_be_none(body: object) -> None:
    with server_saying(body) as (base_url, _asked), pytest.raises(EndpointError, match="does not answer as"):
        look(base_url)
