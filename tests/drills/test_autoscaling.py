"""The real jobs on Ray's second autoscaler: nodes come with a stage's work, are replaced, and go after it.

The expensive kind of node stays away: no stage of this run asks for a GPU.
"""

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from autoscaled_heads import (
    HEAD_ID,
    Timeline,
    autoscaled_head,
    listed,
    living_nodes,
    lose_a_node,
    no_machine_left,
)
from autoscaled_jobs import GOING_SECONDS, TYPES, Job, plain, tell, until_alone, wait_until
from local_buckets import local_bucket
from local_heads import Head

from asclepius_ray.artifacts import Folder, is_finished
from asclepius_ray.training.checkpoints.catalog import committed_steps

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

REPORTS = Path(__file__).resolve().parents[2] / "jobs" / "runs" / "quickstart_reports.csv"
SYNTHESIS_SECONDS, REST_SECONDS = 240.0, 600.0
SMALL = (
    "input.limit=16",
    "synthesis.workers=2",
    "synthesis.cpus_per_worker=1",
    "training.workers=[1, 2]",
    "training.checkpoint_steps=5",
    # Long enough for a node to be missed and another one to come.
    "training.phases=[{kind='notes', epochs=120, learning_rate=2e-3}, {kind='instructions', epochs=1}]",
    "evaluation.limit=2",
    "evaluation.models=['trained']",
)
BEGUN = re.compile(r"(\d) workers begin after step (\d+)")
TOLD = ("done in", "workers begin", "training waits", "workers were lost", "started anew", "serving")


@dataclass
class Seen:
    """Two jobs on one cluster: the synthesis alone, and then all that comes after it."""

    root: Folder
    timeline: Timeline
    synthesis: Job
    rest: Job
    lost: float
    """When the training lost a node."""
    held_after: dict[str, list[str]] = field(default_factory=dict)
    """Stage → what still holds a part of a node a moment after its end."""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    folder = tmp_path_factory.mktemp("autoscaled")
    # A path of this machine is refused where nodes are yet to come.
    with (
        local_bucket("drill") as bucket,
        autoscaled_head(TYPES, folder) as head,
        Timeline(partial(living_nodes, head.address, TYPES)) as timeline,
        ThreadPoolExecutor(1) as beside,
    ):
        Folder(bucket.format("input")).write_bytes(REPORTS.name, REPORTS.read_bytes())
        root = bucket.format("root")
        settings = (root, f"input.path={bucket.format(f'input/{REPORTS.name}')}", *SMALL)
        held_after: dict[str, list[str]] = {}
        note = partial(note_holders, head, held_after)
        synthesis = Job.submitted(head, timeline, "synthesize", *settings)
        synthesis.follow(SYNTHESIS_SECONDS, note)
        require_success(synthesis)
        until_alone(timeline)
        rest = Job.submitted(head, timeline, "pipeline", *settings)
        lost = beside.submit(lose_one_of_two, rest, Folder(root))
        rest.follow(REST_SECONDS, note)
        until_alone(timeline)
        acts = [] if lost.exception() else [(lost.result(), "a node is lost")]
        tell(timeline, TOLD, synthesis, rest, acts=acts)
        require_success(rest)
        yield Seen(Folder(root), timeline, synthesis, rest, lost.result(), held_after)


def lose_one_of_two(job: Job, root: Folder) -> float:
    """Takes a node from a training on two; another one comes when it has gone on with one."""
    job.wait_for("2 workers begin", REST_SECONDS)
    training = root.child("training")
    _, begun = BEGUN.findall(job.text)[-1]
    wait_until(lambda: max(committed_steps(training), default=0) > int(begun), 120, "no checkpoint was saved")
    with no_machine_left():
        lost = job.timeline.now()
        lose_a_node()
        job.wait_for("1 workers begin", 120, since=lost)
    return lost


def require_success(job: Job) -> None:
    assert job.process.returncode == 0, job.text


def note_holders(head: Head, held_after: dict[str, list[str]], line: str) -> None:
    if ": done in" in line:
        time.sleep(1)
        held_after[line.split(":")[0]] = holders(head.address)


def holders(address: str) -> list[str]:
    """What keeps a node from being idle: actors anywhere but on the head, and places kept for some."""
    actors = listed(address, "actors", "state", "ALIVE")
    found = [actor["class_name"] for actor in actors if actor["node_id"] != HEAD_ID]
    groups = listed(address, "placement_groups", "state", "CREATED")
    return found + [group["placement_group_id"] for group in groups]


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


def test_training_goes_on_without_a_lost_node_and_grows_again_when_another_has_come(seen: Seen) -> None:
    job, timeline = seen.rest, seen.timeline
    begun = [(int(workers), int(step)) for workers, step in BEGUN.findall(job.text)]
    assert [workers for workers, _ in begun][-3:] == [2, 1, 2]
    first, with_one, grown = (step for _, step in begun[-3:])
    assert first < with_one < grown
    shrunk, end = job.at(f"1 workers begin after step {with_one}"), job.at("train: done")
    assert plain(timeline.between(seen.lost, end)) == [2, 1, 2]
    assert plain(timeline.between(shrunk, shrunk)) == [1]
    lines = seen.root.child("training").read_bytes("metrics.jsonl").decode().splitlines()
    steps = [line["step"] for line in map(json.loads, lines) if "loss" in line]
    assert steps == list(range(1, len(steps) + 1))
    assert grown < len(steps)


def test_nothing_of_a_finished_stage_holds_a_node(seen: Seen) -> None:
    assert seen.held_after == {"synthesize": [], "train": [], "evaluate": []}


def test_at_the_end_the_head_is_alone(seen: Seen) -> None:
    job, timeline = seen.rest, seen.timeline
    assert is_finished(seen.root.child("evaluation"))
    assert max(plain(timeline.between(job.at("train: done"), job.ended))) >= 1
    assert plain(timeline.between(job.ended, job.ended + GOING_SECONDS))[-1] == 0


def test_no_node_with_a_gpu_comes_for_stages_that_ask_for_none(seen: Seen) -> None:
    assert all(counts["expensive"] == 0 for _, counts in seen.timeline.moments)
