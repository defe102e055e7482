"""The servers of the serving benchmark, each a process of its own: bare vLLM's, ours, ray.serve.llm."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

CONTENDERS = Path(__file__).resolve().parent / "contenders"
PROJECT = Path(__file__).resolve().parents[2]
VLLM_PYTHON = PROJECT / ".venv-vllm" / "bin" / "python"
START_SECONDS = 400.0
MAX_MODEL_LEN = 1024
CACHE_GIB = 4
"""Room for 64 answers at a time: how each of them queues is not compared here."""


@dataclass(frozen=True)
class Contender:
    """A server that answers at `base_url` under the key; `model` is its name in requests."""

    name: str
    base_url: str
    model: str
    api_key: str


def bare_vllm(model: Path, port: int, _: str) -> list[str]:
    """vLLM's own API server."""
    return [
        *(str(VLLM_PYTHON), "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)),
        *("--served-model-name", "model", "--host", "127.0.0.1", "--port", str(port)),
        *("--max-model-len", str(MAX_MODEL_LEN), "--dtype", "float32"),
    ]


def ray_serve_llm(model: Path, port: int, _: str) -> list[str]:
    """ray.serve.llm."""
    script = CONTENDERS / "ray_serve_llm.py"
    return [str(VLLM_PYTHON), str(script), str(model), str(port), str(MAX_MODEL_LEN)]


def ours(model: Path, port: int, scratch: str) -> list[str]:
    """`asclepius run serve` with the engine vllm."""
    settings = {
        "name": "model",
        "root": f"{scratch}/root",
        "serving.engine": "vllm",
        "serving.model": str(model),
        "serving.port": port,
        "serving.cache_gib": CACHE_GIB,
        "serving.max_context_tokens": MAX_MODEL_LEN,
    }
    overrides = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    run_file = str(PROJECT / "jobs" / "runs" / "quickstart.toml")
    return [str(VLLM_PYTHON), "-m", "asclepius_ray.cli", "run", "serve", run_file, *overrides]


CONTESTANTS: dict[str, Callable[[Path, int, str], list[str]]] = {
    "bare vLLM": bare_vllm,
    "ours": ours,
    "ray.serve.llm": ray_serve_llm,
}


@contextmanager
def running(name: str, model: Path, scratch: Path) -> Iterator[Contender]:
    """Starts the server, yields it when it answers, and ends it and all that it started."""
    port = _free_port()
    api_key = secrets.token_urlsafe(32)
    scratch.mkdir(parents=True)
    environment = os.environ | {
        "ASCLEPIUS_API_KEY": api_key,
        "VLLM_CPU_KVCACHE_SPACE": str(CACHE_GIB),
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "RAY_AUTH_MODE": "disabled",
        "PYTHONPATH": str(PROJECT),
    }
    # Its own folder, so that Ray's sessions of two contenders never meet.
    with (scratch / "log").open("wb") as log:
        process = subprocess.Popen(
            CONTESTANTS[name](model, port, str(scratch)),
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=PROJECT,
            start_new_session=True,
        )
    try:
        contender = Contender(name, f"http://127.0.0.1:{port}/v1", "model", api_key)
        _wait_until_answering(contender, process, scratch / "log")
        yield contender
    finally:
        _end(process)


def _wait_until_answering(contender: Contender, process: subprocess.Popen[bytes], log: Path) -> None:
    give_up = time.monotonic() + START_SECONDS
    body = {"model": contender.model, "messages": [{"role": "user", "content": "word1"}], "max_tokens": 2}
    headers = {"Authorization": f"Bearer {contender.api_key}"}
    while time.monotonic() < give_up:
        if process.poll() is not None:
            break
        try:
            url = f"{contender.base_url}/chat/completions"
            if httpx.post(url, json=body, headers=headers, timeout=30).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
    raise AssertionError(f"{contender.name} did not start:\n{tail}")


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def load(contender: Contender, clients: int, answers: int) -> str:
    """Runs the load process against the server; its JSON line."""
    script = Path(__file__).with_name("serving_load.py")
    command = [sys.executable, str(script), contender.base_url, contender.model]
    command += ["--clients", str(clients), "--answers", str(answers)]
    environment = os.environ | {"SERVING_KEY": contender.api_key}
    ended = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=900)
    return ended.stdout.splitlines()[-1]
