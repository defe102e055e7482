"""Replicas that come with the load and go without it, on a real cluster."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import openai
import pytest
from ray import serve
from ray.serve.handle import DeploymentHandle
from served_models import API_KEY, LONG_ANSWER, save_tiny_model

from asclepius_ray.progress import Progress
from asclepius_ray.serving.config import ServingConfig
from asclepius_ray.serving.scaling_options import scaling_options
from asclepius_ray.serving.stage import open_models

pytestmark = pytest.mark.long

TIGHT = ServingConfig(
    port=0,
    proxy="serve",
    replicas=(1, 2),
    target_wait_seconds=0.2,
    scale_up_seconds=1.0,
    idle_seconds=2.0,
    admission_tokens=600,
    max_new_tokens=200,
    cache_gib=0.1,
)
PATIENCE_SECONDS = 400.0


def num_running(application: str, deployment: str) -> int:
    states = serve.status().applications[application].deployments[deployment].replica_states
    return int(states.get("RUNNING", 0))


def wait_for(count: int, application: str, deployment: str) -> None:
    give_up = time.monotonic() + PATIENCE_SECONDS
    while num_running(application, deployment) != count:
        assert time.monotonic() < give_up, f"never {count} replicas: {serve.status()}"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def base_url(ray_cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = save_tiny_model(tmp_path_factory.mktemp("model") / "one", seed=3)
    with Progress() as progress, open_models({"one": str(folder)}, TIGHT, API_KEY, progress) as base_urls:
        yield base_urls["one"]


def test_a_full_model_gets_a_second_replica_and_loses_it_when_nobody_asks(base_url: str) -> None:
    (application,) = (name for name in serve.status().applications if name.startswith("one-"))
    assert num_running(application, "model") == 1
    is_over = Event()

    def ask_on() -> None:
        client = openai.OpenAI(base_url=base_url, api_key=API_KEY, max_retries=0, timeout=60)
        while not is_over.is_set():
            try:
                client.chat.completions.create(model="one", messages=LONG_ANSWER, max_tokens=200)
            except openai.RateLimitError:
                is_over.wait(0.2)

    with ThreadPoolExecutor(6) as pool:
        clients = [pool.submit(ask_on) for _ in range(6)]
        try:
            wait_for(2, application, "model")
        finally:
            is_over.set()
        for client in clients:
            client.result()
    wait_for(1, application, "model")


@serve.deployment(ray_actor_options={"num_cpus": 0}, graceful_shutdown_wait_loop_s=0.1)
class Echo:
    """As much of a model's replica as Serve's choice of their number sees."""

    def __call__(self, word: str) -> str:
        return word

    def record_autoscaling_stats(self) -> dict[str, float]:
        return {"held_tokens": 0.0, "asked_tokens": 0.0}


def test_the_last_replica_goes_and_a_request_that_waits_starts_the_first(base_url: str) -> None:
    config = ServingConfig(replicas=(0, 1), idle_seconds=0.5)
    options = scaling_options(config)
    handle: DeploymentHandle = serve.run(
        Echo.options(**options).bind(), name="echo", route_prefix="/echo", blocking=False
    )
    try:
        wait_for(0, "echo", "Echo")
        assert handle.remote("again").result(timeout_s=PATIENCE_SECONDS) == "again"
    finally:
        serve.delete("echo")
