"""The whole pipeline over three nodes: with nothing in its way, with nodes cut off, with drivers killed.

Nodes are hosts in network namespaces, which share nothing but a folder or a bucket, or simulated ones: three
Ray nodes of this machine.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cluster_of_hosts import cluster_of_hosts
from cluster_of_nodes import cluster_of_nodes
from cluster_with_losses import ClusterWithLosses
from local_buckets import local_bucket
from separate_hosts import separate_hosts, why_no_hosts
from submitted_jobs import TOKEN
from synthesis_runs import Counted, counted_by

from asclepius_ray.artifacts import Folder, is_finished, read_manifest
from asclepius_ray.chat.config import OFFLINE_MODEL
from asclepius_ray.chat.journal.journal import Journal
from asclepius_ray.chat.offline.faults import Faults
from asclepius_ray.chat.offline.server import OfflineTeacher
from asclepius_ray.metric_log import read_metrics
from asclepius_ray.training.checkpoints.catalog import committed_steps

pytestmark = pytest.mark.long

Cluster = ClusterWithLosses[Any]

NUM_ROWS = 24
NUM_CALLS = 3 * NUM_ROWS
IN_FLIGHT = 6
SLOW_SECONDS = 1.0
"""A call's time while something is to happen."""
END_SECONDS = 700
WHOLE = (
    f"input.limit={NUM_ROWS}",
    "synthesis.workers=3",
    f"teacher.model={OFFLINE_MODEL}",
    "teacher.api_key_env=",
    f"teacher.max_in_flight={IN_FLIGHT}",
    "training.phases=[{kind='notes', epochs=4, learning_rate=2e-3}, {kind='instructions', epochs=4}]",
    # One micro-batch a worker and step: the sum is the same to the bit on any number of workers.
    "training.global_batch=2",
    "training.micro_batch=1",
    "training.cpu_threads=1",
    "training.checkpoint_steps=5",
    "evaluation.limit=4",
)


@dataclass(frozen=True)
class Made:
    """What a run has come to."""

    files: dict[str, dict[str, str]]
    """Artefact of the synthesis → file → sha256."""
    steps: list[tuple[int, str, float]]
    """Number, hash of the rows and loss of each optimizer step."""


def made_in(root: Folder) -> Made:
    assert is_finished(root.child("evaluation"))
    assert root.exists("report.html")
    lines = [line for line in read_metrics(root.child("training")) if "loss" in line]
    return Made(
        {name: dict(read_manifest(root.child(name)).files) for name in ("dataset", "notes", "rejected")},
        [(line["step"], line["rows"], line["loss"]) for line in lines],
    )


def end(process: "subprocess.Popen[str]") -> str:
    """What was said until the job's end, which has to be a good one."""
    output, _ = process.communicate(timeout=END_SECONDS)
    assert process.returncode == 0, output
    return output


@contextmanager
def teacher_at(address: str, latency_seconds: float) -> Iterator[OfflineTeacher]:
    with OfflineTeacher(host=address, faults=Faults(latency_seconds=latency_seconds)) as teacher:
        yield teacher


@contextmanager
def three_hosts(folder: Path) -> Iterator[Cluster]:
    if reason := why_no_hosts():
        pytest.skip(f"no hosts in network namespaces can be made here: {reason}")
    with separate_hosts(folder, 3) as hosts, cluster_of_hosts(hosts, TOKEN) as cluster:
        yield cluster


@contextmanager
def three_nodes(folder: Path) -> Iterator[Cluster]:
    with cluster_of_nodes(folder, num_workers=2) as cluster:
        yield cluster


KINDS = {"hosts": three_hosts, "nodes": three_nodes}


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def cluster(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    # What a bucket asks for; the nodes' environment is that of this process.
    os.environ["AWS_ACCESS_KEY_ID"] = os.environ["AWS_SECRET_ACCESS_KEY"] = "testing"
    with KINDS[kind](tmp_path_factory.mktemp(kind)) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def bucket(kind: str, cluster: Cluster) -> Iterator[str]:
    with local_bucket(f"runs-of-{kind}", cluster.gateway) as uri:
        yield uri


@dataclass(frozen=True)
class Undisturbed:
    """A run with nothing in its way."""

    made: Made
    output: str


@pytest.fixture(scope="module")
def undisturbed(cluster: Cluster, bucket: str) -> Undisturbed:
    """With the root in a bucket."""
    root = Folder(bucket.format("undisturbed"))
    # Slow enough for the workers of all nodes to be up before all is asked.
    with teacher_at(cluster.gateway, SLOW_SECONDS) as teacher:
        output = end(cluster.submit(root.uri, *WHOLE, f"teacher.base_url={teacher.base_url}"))
        assert counted_by(teacher.base_url).num_accepted == NUM_CALLS
    return Undisturbed(made_in(root), output)


@pytest.fixture(scope="module")
def made_before() -> list[Made]:
    """By the kinds of clusters that have been there before."""
    return []


def test_every_stage_works_on_several_nodes(cluster: Cluster, undisturbed: Undisturbed) -> None:
    assert len(undisturbed.made.steps) >= 12
    assert len(cluster.nodes_of("RowWalker")) > 1
    assert len(cluster.nodes_of("RayTrainWorker")) > 1
    assert len(cluster.nodes_of("ServeReplica")) > 1


def test_hosts_and_simulated_nodes_make_the_same(undisturbed: Undisturbed, made_before: list[Made]) -> None:
    made_before.append(undisturbed.made)
    assert made_before == [undisturbed.made] * len(made_before)


def test_the_log_of_a_submitted_job_names_the_places_of_answers_and_holds_none(
    undisturbed: Undisturbed,
) -> None:
    assert "asked   kept in" in undisturbed.output
    assert "answer  " not in undisturbed.output


@dataclass(frozen=True)
class Survived:
    """A run in each of whose stages a node was cut off."""

    made: Made
    at_risk: int
    """Prompts that had been asked and whose answers were not durable at the cut."""
    counted: Counted


@pytest.fixture(scope="module")
def survived(cluster: Cluster, bucket: str) -> Survived:
    root = Folder(bucket.format("survived"))
    slow_evaluation = ("evaluation.max_new_tokens=200", "evaluation.max_in_flight=1")
    with teacher_at(cluster.gateway, SLOW_SECONDS) as teacher:
        job = cluster.submit(root.uri, *WHOLE, *slow_evaluation, f"teacher.base_url={teacher.base_url}")
        cluster.wait_until(
            lambda: len(teacher.accepted_at) >= NUM_CALLS // 4, END_SECONDS, "nothing is asked"
        )
        cluster.cut_off("RowWalker")
        at_risk = counted_by(teacher.base_url).num_prompts - num_durable(root)
        assert not is_finished(root.child("dataset"))
        wait_for_checkpoint(cluster, root)
        cluster.cut_off("RayTrainWorker")
        assert not is_finished(root.child("model"))
        answers = root.child("journal/evaluation/models")
        cluster.wait_until(lambda: bool(answers.names()), END_SECONDS, "no model is asked")
        cluster.cut_off("ServeReplica")
        assert not is_finished(root.child("evaluation"))
        cluster.wait_until(lambda: job.poll() is not None, END_SECONDS, "the job does not end")
        end(job)
        counted = counted_by(teacher.base_url)
    return Survived(made_in(root), at_risk, counted)


def wait_for_checkpoint(cluster: Cluster, root: Folder) -> None:
    training = root.child("training")
    cluster.wait_until(lambda: bool(committed_steps(training)), END_SECONDS, "no checkpoint comes")


def num_durable(root: Folder) -> int:
    return len(Journal.open(root.child("journal/teacher")))


def test_a_run_survives_a_node_cut_off_in_each_stage_and_makes_the_same(
    survived: Survived, undisturbed: Undisturbed
) -> None:
    assert survived.made == undisturbed.made


def test_a_node_cut_off_costs_no_more_calls_than_were_not_durable(survived: Survived) -> None:
    assert survived.counted.num_prompts == NUM_CALLS
    assert survived.counted.num_repeated <= survived.at_risk


@pytest.mark.parametrize("storage", ["folder", "bucket"])
def test_a_job_killed_twice_and_then_submitted_twice_at_once_is_done_once_and_makes_the_same(
    cluster: Cluster, bucket: str, undisturbed: Undisturbed, storage: str
) -> None:
    # Where the test finds the root, and where the job does, with what is shared for it.
    in_bucket = bucket.format("killed")
    root, place, shared = {
        "folder": (Folder(str(cluster.shared_here / "root")), str(cluster.shared / "root"), [cluster.shared]),
        "bucket": (Folder(in_bucket), in_bucket, []),
    }[storage]
    with teacher_at(cluster.gateway, SLOW_SECONDS / 2) as teacher:
        settings = (*WHOLE, f"teacher.base_url={teacher.base_url}")

        def submitted() -> "subprocess.Popen[str]":
            return cluster.submit(place, *settings, shared=shared)

        job = submitted()
        cluster.wait_until(
            lambda: len(teacher.accepted_at) >= NUM_CALLS // 3, END_SECONDS, "nothing is asked"
        )
        at_risk = kill_driver(cluster, job, root, teacher)
        job = submitted()
        wait_for_checkpoint(cluster, root)
        kill_driver(cluster, job, root, teacher)
        assert not is_finished(root.child("model"))
        twins = [submitted(), submitted()]
        said = [end(twin) for twin in twins]
        counted = counted_by(teacher.base_url)
    assert ["following it" in output for output in said].count(True) == 1
    assert made_in(root) == undisturbed.made
    assert counted.num_prompts == NUM_CALLS
    assert counted.num_repeated <= at_risk


def kill_driver(cluster: Cluster, job: "subprocess.Popen[str]", root: Folder, teacher: OfflineTeacher) -> int:
    """kill -9 of the job's own process; the prompts that have been asked without a durable answer."""
    for process in cluster.head.processes("jobs/pipeline.py"):
        process.kill()
    output, _ = job.communicate(timeout=END_SECONDS)
    assert job.returncode != 0, output
    return counted_by(teacher.base_url).num_prompts - num_durable(root)
