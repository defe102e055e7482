"""Streams that go on while replicas are replaced, and end in words where one is killed."""

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field

import httpx
import pytest
import ray
from ray import serve
from ray.cluster_utils import Cluster
from ray.util.state import list_actors
from reciting_model import save_reciting_model, streamed_body

from asclepius_ray.progress import Progress
from asclepius_ray.ray_session import shut_down_ray
from asclepius_ray.serving.config import ServingConfig
from asclepius_ray.serving.serve_start import free_port
from asclepius_ray.serving.stage import open_models

pytestmark = pytest.mark.long

KEY = "rollout-drill-key-0123456789abcdef"
WORDS = [f" word{number}" for number in range(20)] + [" so."]
TOKENS = 400
STREAMS_AT_A_TIME = 6
STEADY_SECONDS = 6.0
MALFORMED = "malformed refusal"


@dataclass
class Load:
    """So many streams at any time, each begun anew when it has ended; how each of them ended."""

    base_url: str
    ends: Counter[str] = field(default_factory=Counter)
    seconds_of_ends: list[tuple[float, str]] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def stream(self) -> str:
        body = streamed_body("model", TOKENS)
        headers = {"Authorization": f"Bearer {KEY}"}
        url, tokens, last = f"{self.base_url}/chat/completions", 0, ""
        try:
            with httpx.stream("POST", url, json=body, headers=headers, timeout=120) as response:
                if response.status_code != 200:
                    return self._refusal(response)
                for line in response.iter_lines():
                    if line.startswith("data: "):
                        last = line[6:]
                        if last.startswith("{") and (usage := json.loads(last).get("usage")):
                            tokens = usage["completion_tokens"]
        except httpx.HTTPError as error:
            return f"cut ({type(error).__name__})"
        if last == "[DONE]":
            return "whole" if tokens == TOKENS else "short"
        return "error event" if "error" in json.loads(last or "{}") else "no end"

    def _refusal(self, response: httpx.Response) -> str:
        try:
            error = json.loads(response.read())["error"]
            is_whole = {"message", "type", "param", "code"} <= error.keys()
            is_whole &= int(response.headers["retry-after"]) >= 1
        except (ValueError, KeyError, AttributeError):
            is_whole = False
        return f"refused {response.status_code}" if is_whole else f"{MALFORMED} {response.status_code}"

    def client(self) -> None:
        while not self.stopped.is_set():
            end = self.stream()
            self.ends[end] += 1
            self.seconds_of_ends.append((time.monotonic(), end))
            if end != "whole":
                time.sleep(0.3)

    def run_until_stopped(self, threads: ThreadPoolExecutor) -> list[Future[None]]:
        clients = []
        for number in range(STREAMS_AT_A_TIME):
            clients.append(threads.submit(self.client))
            time.sleep(0.2 * (number % 2))
        return clients


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 4, "include_dashboard": True, "dashboard_port": 0}
    )
    cluster.add_node(num_cpus=4)
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    shut_down_ray()
    cluster.shutdown()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("rollout") / "model"
    save_reciting_model(folder, WORDS, 2048, ends=False)
    return str(folder)


@pytest.fixture(scope="module")
def config() -> ServingConfig:
    return ServingConfig(port=free_port("127.0.0.1"), replicas=2, drain_seconds=60)


Deploy = Callable[[ServingConfig], str]


@pytest.fixture(scope="module")
def deploy(cluster: Cluster, model: str) -> Iterator[Deploy]:
    """Serves the model with these settings, in the place of what is served; its address."""
    with ExitStack() as opened:

        def enter(config: ServingConfig) -> str:
            served = open_models({"model": model}, config, KEY, Progress(), is_public=True)
            return opened.enter_context(served)["model"]

        yield enter


@pytest.fixture(scope="module")
def base_url(deploy: Deploy, config: ServingConfig) -> str:
    return deploy(config)


@pytest.fixture
def load(base_url: str) -> Iterator[Load]:
    running = Load(base_url)
    with ThreadPoolExecutor(STREAMS_AT_A_TIME) as threads:
        clients = running.run_until_stopped(threads)
        time.sleep(STEADY_SECONDS)
        yield running
        running.stopped.set()
    for client in clients:
        client.result()  # what ended a client before its time ends the test


def replica_processes() -> dict[str, int]:
    """Actor → process of each living replica of the model."""
    # Of this cluster, whatever others run on this machine.
    address = ray.get_runtime_context().gcs_address
    found = list_actors(address=address, filters=[("state", "=", "ALIVE")], detail=True, limit=1000)
    return {each.actor_id: each.pid for each in found if (each.name or "").startswith("SERVE_REPLICA")}


def num_ongoing() -> dict[str, int]:
    """Actor → how many requests each replica of the model is answering now."""
    names = {
        each["name"]: ray.get_actor(each["name"], each["namespace"])
        for each in ray.util.list_named_actors(all_namespaces=True)
        if each["name"].startswith("SERVE_REPLICA")
    }
    counts = ray.get([actor.get_num_ongoing_requests.remote() for actor in names.values()])
    return {actor._actor_id.hex(): count for actor, count in zip(names.values(), counts, strict=True)}


def wait_for_replicas(num: int, without: set[str], seconds: float = 300) -> None:
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        state = next(iter(serve.status().applications.values()))
        if len(replica_processes().keys() - without) >= num and state.status.value == "RUNNING":
            return
        time.sleep(0.5)
    raise AssertionError(f"{num} new replicas were not up within {seconds} s: {serve.status()}")


def test_a_redeploy_cuts_no_stream(load: Load, deploy: Deploy, config: ServingConfig) -> None:
    before = set(replica_processes())
    assert len(before) == 2
    deploy(config.model_copy(update={"max_new_tokens": config.max_new_tokens + 1}))
    wait_for_replicas(2, before)
    give_up = time.monotonic() + 250
    while before & replica_processes().keys() and time.monotonic() < give_up:
        time.sleep(0.5)
    assert not before & replica_processes().keys(), "an old replica is still there"
    time.sleep(STEADY_SECONDS)
    load.stopped.set()
    assert set(load.ends) == {"whole"}, load.ends
    assert load.ends["whole"] >= 10


def test_a_killed_replica_breaks_its_own_streams_alone_and_each_says_so(load: Load) -> None:
    before = replica_processes()
    assert len(before) == 2
    ongoing = num_ongoing()
    # The one with fewer streams, so that those of the other one would be noticed.
    killed = min(before, key=lambda actor: ongoing[actor] or STREAMS_AT_A_TIME)
    assert 1 <= ongoing[killed] <= STREAMS_AT_A_TIME / 2, ongoing
    killed_at = time.monotonic()
    os.kill(before[killed], signal.SIGKILL)
    time.sleep(STEADY_SECONDS)
    wait_for_replicas(2, {killed})
    time.sleep(STEADY_SECONDS)
    load.stopped.set()
    cut = [end for _, end in load.seconds_of_ends if end not in ("whole", "error event", "refused 503")]
    assert cut == [], load.ends
    # Between the count and the kill one stream may have ended, and another one begun.
    errors, refused = load.ends["error event"], load.ends["refused 503"]
    assert errors >= max(1, ongoing[killed] - 1), (load.ends, ongoing)
    # A request that had come to the dead one, and no further, is refused; those of the other are untouched.
    elsewhere = sum(ongoing.values()) - ongoing[killed]
    assert errors + refused <= STREAMS_AT_A_TIME - elsewhere + 1, (load.ends, ongoing)
    after = [end for at, end in load.seconds_of_ends if at > killed_at + STEADY_SECONDS]
    assert after.count("whole") >= 3, load.ends
