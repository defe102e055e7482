"""Nodes lost and drivers killed, in requests, in batches and at a budget: nothing is bought twice for it."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
import ray
from benchmarks.teacher_process import teacher_process
from metadata_server import metadata_server
from ray._private.node import Node as ClusterNode
from ray.cluster_utils import Cluster
from ray.experimental.internal_kv import _initialize_internal_kv
from synthesis_runs import (
    ASCLEPIUS,
    Counted,
    Order,
    Run,
    check_counts,
    counted_by,
    files_of,
    manifest_of,
    num_durable,
    started,
    unbroken_manifest,
)

from asclepius_ray.artifacts import Folder
from asclepius_ray.chat.config import PriceConfig
from asclepius_ray.chat.journal.journal import Journal
from asclepius_ray.chat.offline.batches import BatchKnobs, OfflineBatches
from asclepius_ray.chat.offline.faults import Faults
from asclepius_ray.chat.offline.server import OfflineTeacher
from asclepius_ray.chat.prices import cost_usd
from asclepius_ray.chat.row_deaths import DEATHS_MARK
from asclepius_ray.synthesis.steps import STEPS

LATENCY_SECONDS = 0.2
NOTICE_SECONDS = 120
PRICE = PriceConfig(input_usd_per_million_tokens=2.0, output_usd_per_million_tokens=8.0)
PRICED = f"teacher.price={{input_usd_per_million_tokens={PRICE.input_usd_per_million_tokens}, " + (
    f"output_usd_per_million_tokens={PRICE.output_usd_per_million_tokens}}}"
)
QUICK_TO_NOTICE = {"health_check_period_ms": 1000, "health_check_failure_threshold": 3}


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Three nodes; a driver connects to the head and finds its desk there."""
    head = {"num_cpus": 1, "include_dashboard": False, "_system_config": QUICK_TO_NOTICE}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        yield cluster
    finally:
        cluster.shutdown()
        # It has made this process forget the key-value store of its own cluster, that of other tests, too.
        if ray.is_initialized():
            _initialize_internal_kv(ray._private.worker.global_worker.gcs_client)


def find_below(raylet: psutil.Process, role: str) -> list[psutil.Process]:
    found = []
    for process in raylet.children(recursive=True):
        try:
            if role in process.cmdline()[0]:
                found.append(process)
        except (psutil.Error, IndexError):
            continue
    return found


@dataclass(frozen=True)
class AtWork:
    """A run over three nodes, a quarter of whose calls are accepted."""

    run: Run
    base_url: str
    node: ClusterNode
    """One of its nodes, no driver's."""
    workers: list[psutil.Process]
    """Those on that node."""


@contextmanager
def at_work(root: Path, order: Order, cluster: Cluster) -> Iterator[AtWork]:
    node = next(iter(cluster.worker_nodes))
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    settings = ("teacher.max_in_flight=12", "synthesis.workers=3")
    connected = {"RAY_ADDRESS": cluster.address}
    with (
        teacher_process(short=1, latency_seconds=LATENCY_SECONDS) as teacher,
        started(Run(root, order, teacher.base_url, *settings, environment=connected)) as run,
    ):
        run.wait_until(lambda: counted_by(teacher.base_url).num_prompts >= num_calls_of(order) / 4)
        workers = find_below(raylet, "MapWorker")
        assert workers, "nothing is at work on the node"
        yield AtWork(run, teacher.base_url, node, workers)


def num_calls_of(order: Order) -> int:
    return len(STEPS) * order.num_rows


def test_a_lost_node_costs_no_more_than_what_was_in_flight_and_no_row(
    small_order: Order, cluster: Cluster, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    with at_work(root, small_order, cluster) as work:
        cluster.remove_node(work.node, allow_graceful=False)
        _gone, alive = psutil.wait_procs(work.workers, timeout=60)
        assert alive == []
        at_risk = counted_by(work.base_url).num_prompts - num_durable(root)
        assert work.run.end() == 0, work.run.output
        counted = counted_by(work.base_url)
    assert counted.num_prompts == num_calls_of(small_order)
    assert counted.num_repeated <= at_risk
    assert files_of(root) == small_order.files
    check_counts(manifest_of(root), small_order.num_rows)


@contextmanager
def noticed(node: ClusterNode, address: str, log: Path) -> Iterator[None]:
    """Amazon takes the machine away in NOTICE_SECONDS: its drain watcher learns of it, and tells Ray."""
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=NOTICE_SECONDS)
    notice = json.dumps({"action": "terminate", "time": end.isoformat()})
    with metadata_server() as service, log.open("w") as output:
        service.put("instance-action", notice)
        command = [ASCLEPIUS, "drain-watch", "--provider", "aws", "--node", node.node_id]
        command += ["--address", service.address, "--poll-seconds", "0.2"]
        environment = os.environ | {"RAY_ADDRESS": address}
        watch = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        try:
            yield
        finally:
            watch.kill()
            watch.wait()


def test_a_node_with_a_notice_hands_its_rows_back_and_nothing_is_bought_twice(
    small_order: Order, cluster: Cluster, tmp_path: Path
) -> None:
    root, log, num_calls = tmp_path / "root", tmp_path / "watch.log", num_calls_of(small_order)
    with at_work(root, small_order, cluster) as work:
        with noticed(work.node, cluster.address, log):
            _gone, alive = psutil.wait_procs(work.workers, timeout=NOTICE_SECONDS / 2)
            assert alive == [], log.read_text()
            assert num_durable(root) < num_calls, "there was nothing left to do"
            assert work.run.end() == 0, work.run.output
        counted = counted_by(work.base_url)
    assert (counted.num_prompts, counted.num_repeated) == (num_calls, 0)
    assert list(Journal.open(Folder(str(root / "journal" / "teacher"))).marks(DEATHS_MARK)) == []
    assert files_of(root) == small_order.files
    check_counts(manifest_of(root), small_order.num_rows)


OUTPUT = re.compile(r"/v1/files/(.+)/content")
MOMENTS: dict[str, Callable[[OfflineBatches, str, str], bool]] = {
    "a batch is made and its driver does not know": lambda batches, method, path: (
        (method, path) == ("POST", "/v1/batches") and len(batches.batches) == 2
    ),
    "batches are under way": lambda batches, method, path: (
        method == "GET" and path.startswith("/v1/batches/batch")
    ),
    "output is read and not kept": lambda batches, method, path: (
        method == "GET"
        and (found := OUTPUT.fullmatch(path)) is not None
        and "output_file" in batches.files[found.group(1)][0]
    ),
}


class Killer:
    """Kills a run's driver at one moment of its talk with the batch endpoint."""

    def __init__(self, batches: OfflineBatches) -> None:
        self._batches = batches
        self._run: Run | None = None
        self._moment = ""
        batches.on_served = self._look

    def kill_at(self, moment: str, run: Run) -> None:
        """Returns when that moment has come and nothing of the run is left."""
        self._moment, self._run = moment, run
        run.wait_for_kill()
        assert run.process.returncode == -signal.SIGKILL, run.output

    def _look(self, method: str, path: str) -> None:
        if self._run is not None and MOMENTS[self._moment](self._batches, method, path):
            self._run.note_workers()
            self._run.process.kill()
            self._run = None


@pytest.mark.long
def test_a_driver_killed_at_any_moment_of_a_batch_buys_every_request_once(
    small_order: Order, tmp_path: Path
) -> None:
    root, num_calls = tmp_path / "root", len(STEPS) * small_order.num_rows
    settings = (
        "synthesis.workers=1",
        "teacher.transport=batch",
        "teacher.batch={max_requests=100, poll_seconds=0.3}",
        PRICED,
        "teacher.budget_usd=100",
    )
    with OfflineTeacher(faults=Faults(short=1)) as teacher, ExitStack() as runs:
        batches = teacher.batches
        batches.knobs = BatchKnobs(seconds=1.0)
        killer = Killer(batches)

        def start() -> Run:
            return runs.enter_context(started(Run(root, small_order, teacher.base_url, *settings)))

        for moment in MOMENTS:
            killer.kill_at(moment, start())
        run = start()
        run.wait_until(lambda: len(batches.batches) > 4)
        run.find("Desk")[0].kill()
        assert run.end() == 0, run.output
        chunks = [batch["metadata"]["asclepius_chunk"] for batch in batches.batches.values()]
        assert len(batches.prompts_answered) == num_calls
        assert set(batches.prompts_answered.values()) == {1}
        assert len(chunks) == len(set(chunks))
        assert batches.files == {}, "texts are left at the provider"
    manifest = manifest_of(root)
    assert manifest.details["cost_usd"] == pytest.approx(cost_of(small_order) / 2)
    assert manifest.details["spent"]["cost_usd"] == pytest.approx(cost_of(small_order) / 2)
    check_same_rows(root, small_order)


def cost_of(order: Order) -> float:
    """What the answers of an undisturbed run cost."""
    usage = unbroken_manifest(order).details["usage"].values()
    prompt_tokens, completion_tokens = (
        sum(step[kind] for step in usage) for kind in ("prompt_tokens", "completion_tokens")
    )
    cost = cost_usd(PRICE, prompt_tokens, completion_tokens)
    assert cost
    return cost


def paid_for(counted: Counted) -> float:
    """What a provider would charge, calls that were broken off included."""
    return cost_usd(PRICE, counted.prompt_tokens, counted.completion_tokens) or 0.0


def check_same_rows(root: Path, order: Order) -> None:
    """All files but the dataset's card, which tells a price here."""
    found, expected = (
        {(name, file): digest for name, files in made.items() for file, digest in files.items()}
        for made in (files_of(root), order.files)
    )
    card = ("dataset", "README.md")
    assert {file: found[file] for file in expected if file != card} == {
        file: digest for file, digest in expected.items() if file != card
    }


@pytest.mark.long
def test_kills_at_a_budget_never_pass_it_and_nothing_is_counted_twice(
    small_order: Order, tmp_path: Path
) -> None:
    root, num_calls, cost = tmp_path / "root", len(STEPS) * small_order.num_rows, cost_of(small_order)
    settings = (PRICED, "teacher.max_in_flight=8")
    budget = 0.95 * cost
    with (
        teacher_process(short=1, latency_seconds=LATENCY_SECONDS / 2) as teacher,
        ExitStack() as runs,
    ):

        def start(budget_usd: float) -> Run:
            run = Run(root, small_order, teacher.base_url, *settings, f"teacher.budget_usd={budget_usd}")
            return runs.enter_context(started(run))

        run = start(budget)
        for share, role in ((0.1, "MapWorker"), (0.2, "Desk"), (0.3, ""), (0.4, "")):
            run.wait_until(lambda share=share: counted_by(teacher.base_url).num_prompts >= share * num_calls)
            if role:
                run.find(role)[0].kill()
            else:
                run.kill()
                run = start(budget)
        assert run.end() == 6, run.output
        paid = paid_for(counted_by(teacher.base_url))
        assert "is reached" in run.output
        assert budget / 2 < paid <= budget
        run = start(10 * cost)
        assert run.end() == 0, run.output
        counted = counted_by(teacher.base_url)
    details = manifest_of(root).details
    assert details["cost_usd"] == pytest.approx(cost)
    assert details["spent"]["cost_usd"] == pytest.approx(cost)
    assert cost < paid_for(counted) <= cost + details["spent"]["unsettled_usd"]
    check_same_rows(root, small_order)
