"""The real jobs on Ray's second autoscaler: nodes come with a stage's work and go after it.

The expensive kind of node stays away: no stage of this run asks for a GPU.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from autoscaled_heads import HEAD_ID, NodeType, Timeline, autoscaled_head, listed
from local_buckets import local_bucket
from local_heads import Head

from asclepius_ray.artifacts import Folder, is_finished

pytestmark = [pytest.mark.long, pytest.mark.timeout(560)]

PROJECT = Path(__file__).resolve().parents[2]
REPORTS = PROJECT / "jobs" / "runs" / "quickstart_reports.csv"
BIN = Path(sys.executable).parent
IDLE_SECONDS = 12.0
TYPES = {
    "plain": NodeType({"CPU": 1}, most=2, idle_seconds=IDLE_SECONDS),
    "expensive": NodeType({"CPU": 8, "GPU": 1}, most=1, idle_seconds=IDLE_SECONDS),
}
JOB_SECONDS = 240.0
GOING_SECONDS = IDLE_SECONDS + 15.0
"""By when an idle node has gone: the autoscaler looks every second, and Ray drains it first."""
SMALL = (
    "input.limit=16",
    "synthesis.workers=2",
    "synthesis.cpus_per_worker=1",
    "training.workers=[1, 2]",
    "training.phases=[{kind='notes', epochs=50, learning_rate=2e-3}, {kind='instructions', epochs=1}]",
    "evaluation.limit=2",
    "evaluation.models=['trained']",
)


@dataclass
class Job:
    """A submitted job, with what it said and when."""

    lines: list[tuple[float, str]] = field(default_factory=list)
    begun: float = 0.0
    ended: float = 0.0
    held_after: dict[str, list[str]] = field(default_factory=dict)
    """Stage → what still holds a part of a node a moment after its end."""

    def at(self, text: str) -> float:
        """When it said that."""
        return next(moment for moment, line in self.lines if text in line)

    @property
    def text(self) -> str:
        return "\n".join(line for _, line in self.lines)


@dataclass
class Seen:
    """Two jobs on one cluster: the synthesis alone, and then all that comes after it."""

    root: Folder
    timeline: Timeline
    synthesis: Job
    rest: Job


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    folder = tmp_path_factory.mktemp("autoscaled")
    # A path of this machine is refused where nodes are yet to come.
    with (
        local_bucket("drill") as bucket,
        autoscaled_head(TYPES, folder) as head,
        Timeline(head.address, tuple(TYPES)) as timeline,
    ):
        Folder(bucket.format("input")).write_bytes(REPORTS.name, REPORTS.read_bytes())
        root = bucket.format("root")
        places = (f"root={root}", f"input.path={bucket.format(f'input/{REPORTS.name}')}")
        synthesis = submit(head, "synthesize", places, timeline)
        until_alone(timeline)
        rest = submit(head, "pipeline", places, timeline)
        until_alone(timeline)
        told(timeline, synthesis, rest)
        yield Seen(Folder(root), timeline, synthesis, rest)


def submit(head: Head, name: str, places: tuple[str, ...], timeline: Timeline) -> Job:
    sets = [part for setting in (*places, *SMALL) for part in ("--set", setting)]
    command = [f"{BIN}/asclepius", "submit", name, "jobs/runs/quickstart.toml", "--address", head.address]
    job = Job(begun=timeline.now())
    process = subprocess.Popen(
        [*command, *sets],
        cwd=PROJECT,
        env=head.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    watchdog = threading.Timer(JOB_SECONDS, process.kill)
    watchdog.start()
    assert process.stdout is not None
    for line in process.stdout:
        job.lines.append((timeline.now(), line.rstrip()))
        if ": done in" in line:
            time.sleep(1)
            job.held_after[line.split(":")[0]] = holders(head.address)
    process.wait()
    watchdog.cancel()
    job.ended = timeline.now()
    if process.returncode:
        told(timeline, job)
    assert process.returncode == 0, job.text
    return job


def holders(address: str) -> list[str]:
    """What keeps a node from being idle: actors anywhere but on the head, and places kept for some."""
    actors = listed(address, "actors", "state", "ALIVE")
    found = [actor["class_name"] for actor in actors if actor["node_id"] != HEAD_ID]
    groups = listed(address, "placement_groups", "state", "CREATED")
    return found + [group["placement_group_id"] for group in groups]


def until_alone(timeline: Timeline) -> None:
    deadline = time.monotonic() + GOING_SECONDS + 20
    while any(timeline.moments[-1][1].values()) and time.monotonic() < deadline:
        time.sleep(0.3)


def told(timeline: Timeline, *jobs: Job) -> None:
    marks = ("done in", "workers begin", "training waits", "serving")
    lines = [line for job in jobs for line in job.lines]
    said = [(moment, line) for moment, line in lines if any(mark in line for mark in marks)]
    counts = [(moment, f"nodes {found}") for moment, found in timeline.moments]
    ends = [(job.ended, "job ended") for job in jobs] + [(job.begun, "job submitted") for job in jobs]
    for moment, line in sorted([*said, *counts, *ends]):
        sys.stdout.write(f"{moment:6.1f} s  {line}\n")


def plain(counts: list[dict[str, int]]) -> list[int]:
    return [found["plain"] for found in counts]


def test_the_synthesis_has_nodes_from_none_on_and_leaves_none(seen: Seen) -> None:
    job, timeline = seen.synthesis, seen.timeline
    assert is_finished(seen.root.child("dataset"))
    during = plain(timeline.between(job.begun, job.ended))
    assert during[0] == 0
    assert max(during) == 2
    assert plain(timeline.between(job.ended, seen.rest.begun))[-1] == 0
    assert seen.rest.begun - job.ended < GOING_SECONDS


def test_training_waits_for_its_fewest_and_asks_for_its_most(seen: Seen) -> None:
    job, timeline = seen.rest, seen.timeline
    assert "synthesize: finished already, skipped" in job.text
    assert plain(timeline.between(job.begun, job.begun))[-1] == 0
    assert "training waits: 1 workers need a CPU each, there are 0" in job.text
    assert "2 workers begin after step" in job.text
    assert max(plain(timeline.between(job.begun, job.at("train: done")))) == 2


def test_nothing_of_a_finished_stage_holds_a_node(seen: Seen) -> None:
    held = {**seen.synthesis.held_after, **seen.rest.held_after}
    assert held == {"synthesize": [], "train": [], "evaluate": []}


def test_at_the_end_the_head_is_alone(seen: Seen) -> None:
    job, timeline = seen.rest, seen.timeline
    assert is_finished(seen.root.child("evaluation"))
    assert max(plain(timeline.between(job.at("train: done"), job.ended))) >= 1
    assert plain(timeline.between(job.ended, job.ended + GOING_SECONDS))[-1] == 0


def test_no_node_with_a_gpu_comes_for_stages_that_ask_for_none(seen: Seen) -> None:
    assert all(counts["expensive"] == 0 for _, counts in seen.timeline.moments)
