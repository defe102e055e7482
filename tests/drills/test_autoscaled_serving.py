"""A model served on Ray's second autoscaler: its own policy brings a node under load, and lets it go after.

The provider's nodes are processes of this machine, with ports of their own: HAProxy reaches the replicas.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from autoscaled_heads import Counts, Timeline, autoscaled_head, living_nodes
from autoscaled_jobs import GOING_SECONDS, TYPES, Job, plain, tell, until_alone, wait_until
from local_buckets import local_bucket
from local_heads import Head, free_port
from reciting_model import save_reciting_model

from asclepius_ray.artifacts import Folder

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

KEY = "autoscaled-drill-key-0123456789abcdef"
WORDS = [f" word{number}" for number in range(20)] + [" so."]
TOKENS = 900
"""Of a stream: some seconds, so that one is under way whenever a replica goes."""
JOB_SECONDS = 480.0
STEP_SECONDS = 150.0
LOAD = {"rate": 3.0, "seconds": 12, "max-tokens": TOKENS}
CALM = {"clients": 2, "seconds": 45, "max-tokens": TOKENS}
"""Two streams at any time, while a replica goes."""
QUICK = (
    "serving.replicas=[1, 2]",
    "serving.target_wait_seconds=0.2",
    "serving.scale_up_seconds=2",
    # Longer than the pause between two loads.
    "serving.idle_seconds=10",
    "serving.drain_seconds=60",
    "serving.cache_gib=0.1",
    # Four streams at a time.
    "serving.admission_tokens=4000",
    f"serving.max_new_tokens={TOKENS}",
)


@dataclass
class Seen:
    timeline: Timeline
    job: Job
    loads: list[dict[str, Any]]
    """What the clients saw until there were two replicas."""
    calm: dict[str, Any]
    """And then, while one of them went."""
    calm_begun: float
    calm_ended: float


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    folder = tmp_path_factory.mktemp("autoscaled")
    with (
        operators_key(),
        local_bucket("drill") as bucket,
        autoscaled_head(TYPES, folder) as head,
        Timeline(partial(nodes_and_replicas, head)) as timeline,
    ):
        Folder(bucket.format("model")).upload(save_reciting_model(folder / "model", WORDS, 2048, ends=False))
        port = free_port()
        places = (f"serving.model={bucket.format('model')}", f"serving.port={port}", "name=model")
        job = Job.submitted(head, timeline, "serve", bucket.format("root"), *places, *QUICK)
        with followed(job, head):
            wait_for_counts(timeline, job, plain=1, replicas=1)
            job.wait_for("is served at", STEP_SECONDS)
            loads = [load(port, LOAD)]
            while timeline.moments[-1][1]["replicas"] < 2 and len(loads) < 8:
                loads.append(load(port, LOAD))
            calm_begun = timeline.now()
            calm = load(port, CALM)
            calm_ended = timeline.now()
            wait_for_counts(timeline, job, plain=1, replicas=1)
        until_alone(timeline)
        acts = [(calm_begun, "the load is over, two streams go on"), (calm_ended, "nobody asks any more")]
        tell(timeline, ("is served at", "answers under way"), job, acts=acts)
        yield Seen(timeline, job, loads, calm, calm_begun, calm_ended)


@contextmanager
def operators_key() -> Iterator[None]:
    """In the environment of the head, where the job's driver reads it."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("ASCLEPIUS_API_KEY", KEY)
        yield


def nodes_and_replicas(head: Head) -> Counts:
    answer = httpx.get(f"{head.address}/api/serve/applications/", timeout=10).raise_for_status()
    deployments = [
        each for found in answer.json()["applications"].values() for each in found["deployments"].values()
    ]
    states = [replica["state"] for each in deployments for replica in each["replicas"]]
    return {**living_nodes(head.address, TYPES), "replicas": states.count("RUNNING")}


@contextmanager
def followed(job: Job, head: Head) -> Iterator[None]:
    """Follows the job beside what is done here, and stops it at the end."""
    with ThreadPoolExecutor(1) as beside:
        following = beside.submit(job.follow, JOB_SECONDS)
        try:
            yield
        finally:
            job_id = job.text.split("job ", 1)[1].split(":", 1)[0]
            httpx.post(f"{head.address}/api/jobs/{job_id}/stop", timeout=60).raise_for_status()
        following.result()


def wait_for_counts(timeline: Timeline, job: Job, **wanted: int) -> None:
    def is_so() -> bool:
        return bool(timeline.moments) and wanted.items() <= timeline.moments[-1][1].items()

    wait_until(is_so, STEP_SECONDS, f"never {wanted}: {timeline.moments}, {job.text}")


def load(port: int, settings: dict[str, float]) -> dict[str, Any]:
    options = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    script = Path(__file__).with_name("open_loop.py")
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    ended = subprocess.run(
        ["nice", "-n", "10", sys.executable, str(script), url, "model", *options],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"SERVING_KEY": KEY},
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    told: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    sys.stdout.write(f"{settings}: { {name: told[name] for name in told if name != 'durations_seconds'} }\n")
    return told


def test_the_first_replica_brings_the_first_node(seen: Seen) -> None:
    served = seen.job.at("is served at")
    assert plain(seen.timeline.between(seen.job.begun, served)) == [0, 1, 1]


def test_load_brings_a_second_replica_on_a_second_node(seen: Seen) -> None:
    at_the_end = seen.timeline.between(seen.calm_begun, seen.calm_begun)
    assert at_the_end == [{"plain": 2, "expensive": 0, "replicas": 2}]
    assert sum(sum(each["refused"].values()) for each in seen.loads) > 0


def test_after_the_load_one_replica_and_then_its_node_go(seen: Seen) -> None:
    after = seen.timeline.between(seen.calm_begun, seen.job.ended)
    counts = [(each["plain"], each["replicas"]) for each in after]
    assert counts[:3] == [(2, 2), (2, 1), (1, 1)]
    # Streams were under way as the replica went.
    assert seen.timeline.between(seen.calm_begun, seen.calm_ended)[-1]["replicas"] == 1


def test_no_stream_is_cut_by_the_coming_and_going(seen: Seen) -> None:
    for each in (*seen.loads, seen.calm):
        assert each["ill_formed"] == {}
        assert each["finished"] + sum(each["refused"].values()) == each["sent"]
    assert seen.calm["finished"] >= 4
    assert sum(seen.calm["refused"].values()) == 0


def test_the_stopped_job_leaves_no_node(seen: Seen) -> None:
    ended = seen.job.ended
    assert "stopped by SIGTERM" in seen.job.text
    last = seen.timeline.between(ended, ended + GOING_SECONDS)[-1]
    assert last == {"plain": 0, "expensive": 0, "replicas": 0}
