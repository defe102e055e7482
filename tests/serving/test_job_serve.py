"""The job `serve` as a hospital starts it: on every interface of one machine, under TLS, until SIGTERM."""

import contextlib
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
from certificates import save_certificate
from reciting_model import save_reciting_model, streamed_body

from asclepius_ray.serving.proxy.environment import free_port

pytestmark = pytest.mark.long

PROJECT = Path(__file__).parents[2]
ASCLEPIUS = Path(sys.executable).parent / "asclepius"
KEY = "job-serve-test-key-0123456789abcdef"
WORDS = [f" word{number}" for number in range(20)] + [" so."]
TOKENS = 1500
START_SECONDS = 240.0


@dataclass(frozen=True)
class Job:
    process: subprocess.Popen[str]
    said: list[str]
    port: int
    trust: ssl.SSLContext

    @property
    def base_url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def wait_until_served(self) -> None:
        give_up = time.monotonic() + START_SECONDS
        while not any("is served at" in line for line in self.said):
            assert self.process.poll() is None, "".join(self.said)
            assert time.monotonic() < give_up, "".join(self.said)
            time.sleep(0.2)

    def listening(self) -> set[tuple[str, int]]:
        """Where the processes of this job's Serve listen for TCP."""
        found = set()
        for process in psutil.Process(self.process.pid).children(recursive=True):
            # HAProxy is started anew with every change of the replicas: one may end just now.
            with contextlib.suppress(psutil.NoSuchProcess):
                name = process.name()
                if name.startswith("ray::") or "haproxy" in name:
                    found |= {
                        (each.laddr.ip, each.laddr.port)
                        for each in process.net_connections("tcp")
                        if each.status == psutil.CONN_LISTEN
                    }
        return found


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    folder = tmp_path_factory.mktemp("job")
    save_reciting_model(folder / "model", WORDS, 2048, ends=False)
    certificate, key = save_certificate(folder)
    port = free_port("0.0.0.0")
    settings = (
        f"root={folder / 'root'}",
        f"serving.model={folder / 'model'}",
        "serving.host=0.0.0.0",
        f"serving.port={port}",
        f"serving.tls_certificate={certificate}",
        f"serving.tls_key={key}",
        "serving.drain_seconds=60",
    )
    process = subprocess.Popen(
        [str(ASCLEPIUS), "run", "serve", "jobs/runs/quickstart.toml"]
        + [part for setting in settings for part in ("--set", setting)],
        cwd=PROJECT,
        env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        | {"ASCLEPIUS_API_KEY": KEY},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said: list[str] = []
    assert process.stdout is not None
    reader = threading.Thread(target=said.extend, args=(process.stdout,), daemon=True)
    reader.start()
    trust = ssl.create_default_context(cafile=str(certificate))
    job = Job(process, said, port, trust)
    try:
        job.wait_until_served()
        yield job
    finally:
        process.terminate()
        process.wait(120)


def test_under_tls_nothing_but_the_open_port_is_reached_from_the_network(job: Job) -> None:
    models = httpx.get(
        f"{job.base_url}/v1/models", headers={"Authorization": f"Bearer {KEY}"}, verify=job.trust
    )
    assert models.json()["data"][0]["id"] == "quickstart"
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"http://127.0.0.1:{job.port}/health/live")
    listening = job.listening()
    assert ("0.0.0.0", job.port) in listening
    replicas = {(ip, port) for ip, port in listening if 30000 <= port <= 31000}
    assert {ip for ip, _ in replicas} == {"127.0.0.1"}
    [(_, replica)] = replicas
    assert httpx.get(f"http://127.0.0.1:{replica}/health/live").status_code == 200, "no replica's port"


def test_a_stream_that_is_open_at_sigterm_comes_to_its_end(job: Job) -> None:
    body = streamed_body("quickstart", TOKENS)
    headers = {"Authorization": f"Bearer {KEY}"}
    url, events = f"{job.base_url}/v1/chat/completions", []
    seconds_at_signal = 0.0
    with httpx.stream("POST", url, json=body, headers=headers, verify=job.trust, timeout=90) as response:
        for line in response.iter_lines():
            if line.startswith("data: "):
                events.append(line[6:])
            if len(events) == 3 and not seconds_at_signal:
                seconds_at_signal = time.monotonic()
                job.process.send_signal(signal.SIGTERM)
    assert time.monotonic() - seconds_at_signal > 2, "the stream was too short to be cut"
    assert events[-1] == "[DONE]"
    assert json.loads(events[-2])["usage"]["completion_tokens"] == TOKENS
    assert job.process.wait(90) == 130, "".join(job.said)
    assert "stopped by SIGTERM" in "".join(job.said)
