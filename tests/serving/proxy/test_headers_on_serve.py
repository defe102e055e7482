"""Headers on their way through HAProxy and Ray Serve: what a client writes into them is in no log."""

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import ray
from canaries import leaking_files
from proxy_here import wait_until
from served_models import API_KEY, save_tiny_model

from asclepius_ray.progress import Progress
from asclepius_ray.serving.config import ServingConfig
from asclepius_ray.serving.proxy.environment import free_port
from asclepius_ray.serving.stage import open_models

pytestmark = pytest.mark.whole

SERVES_OWN = ("x-request-timeout-seconds", "x-request-disconnect-disabled", "x-session-id", "traceparent")
BODY = {"model": "one", "messages": [{"role": "user", "content": "zyqcanary"}], "max_tokens": 2}


@dataclass(frozen=True)
class Served:
    """One model behind HAProxy, and all that is written down meanwhile."""

    base_url: str
    audit: Path
    proxy_folder: Path
    logs: Path

    def ask(self, *headers: tuple[str, bytes], api_key: str = API_KEY) -> httpx.Response:
        sent = [(b"authorization", f"Bearer {api_key}".encode())]
        sent += [(name.encode(), value) for name, value in headers]
        return httpx.post(f"{self.base_url}/chat/completions", json=BODY, headers=sent, timeout=60)

    def audit_line(self, request_id: str) -> dict[str, Any]:
        """The one line of this request."""
        wait_until(lambda: any(self._lines(request_id)), "the audit line is written")
        [line] = self._lines(request_id)
        return line

    def _lines(self, request_id: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for file in self.audit.glob("*") for line in file.read_text().splitlines()]
        return [line for line in lines if line["request"] == request_id]


@pytest.fixture(scope="module")
def served(ray_cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("headers")
    model = save_tiny_model(root / "model", seed=3)
    port = free_port("127.0.0.1")
    config = ServingConfig(port=port, audit=str(root / "audit"))
    logs = Path(ray._private.worker.global_worker.node.get_logs_dir_path())
    with Progress() as progress, open_models({"one": str(model)}, config, API_KEY, progress) as base_urls:
        yield Served(base_urls["one"], root / "audit", proxy_folder(port), logs)


def proxy_folder(port: int) -> Path:
    """The folder of the HAProxy that listens there."""
    commands = [each.info["cmdline"] or [] for each in psutil.process_iter(["cmdline"])]
    files = {Path(part) for command in commands for part in command if part.endswith("/haproxy.cfg")}
    # Another test's may have ended, or may be without its folder.
    there = [file for file in files if file.exists()]
    [found] = [file.parent for file in there if f"bind 127.0.0.1:{port}\n" in file.read_text()]
    return found


def test_an_id_is_the_clients_own_in_the_answer_and_in_the_audit(served: Served) -> None:
    answer = served.ask(("X-Request-Id", b"ward-7:4711"))
    assert (answer.status_code, answer.headers["x-request-id"]) == (200, "ward-7:4711")
    assert served.audit_line("ward-7:4711")["status"] == 200


@pytest.mark.parametrize("api_key", [API_KEY, "no-key"], ids=["with a key", "without"])
@pytest.mark.parametrize("sent", [b"zebracanary MRN 1", b"zebracanary\xe9", "zebracanary é".encode()])
def test_text_in_the_id_is_in_no_log_and_the_request_gets_an_id_of_ours(
    served: Served, sent: bytes, api_key: str
) -> None:
    answer = served.ask(("X-Request-Id", sent), api_key=api_key)
    status = 200 if api_key == API_KEY else 401
    assert answer.status_code == status
    ours = answer.headers["x-request-id"]
    assert str(uuid.UUID(ours)) == ours
    assert served.audit_line(ours)["status"] == status
    assert ours.encode() in b"".join(file.read_bytes() for file in served.logs.rglob("*.log"))
    assert leaking_files(served.logs) == []
    assert leaking_files(served.proxy_folder) == []


@pytest.mark.parametrize("name", [*SERVES_OWN, "serve_multiplexed_model_id", "tracestate", "x-another"])
def test_bytes_that_are_no_text_are_no_error_of_the_server(served: Served, name: str) -> None:
    answer = served.ask((name, b"\xe9"))
    status = 400 if name == "x-request-timeout-seconds" else 200
    assert answer.status_code == status
    assert served.audit_line(answer.headers["x-request-id"])["status"] == status
