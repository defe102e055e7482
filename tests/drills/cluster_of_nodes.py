"""A Ray cluster of three simulated nodes: processes of one machine that share its address."""

import os
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from cluster_with_losses import SOON_NOTICED, ClusterWithLosses
from local_heads import Head
from ray.cluster_utils import Cluster
from separate_hosts import command_line

HERE = Path(sys.executable).parent
GATEWAY = "127.0.0.1"
END_SECONDS = 20.0
NODE = {"num_cpus": 1, "object_store_memory": 100_000_000}
HEAD = {
    **NODE,
    "include_dashboard": True,
    "dashboard_port": 0,
    # The fixed one may be another cluster's.
    "dashboard_agent_listen_port": 0,
    "_system_config": SOON_NOTICED,
}


class SimulatedNode:
    """What one of Ray's nodes has started, from its raylet to the last worker."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._node: Any = None

    @property
    def node_id(self) -> str:
        found: str = self._node.node_id
        return found

    def boot(self, **arguments: Any) -> None:
        """Returns when the node is one of the cluster's."""
        assert self._node is None, f"{self.node_id} is running"
        # A node that begins to work for a job removes its code and unpacks it anew. In one folder for all
        # nodes, which is what they would have, it would be gone for the others meanwhile.
        self._node = self._cluster.add_node(runtime_env_dir_name=f"code-{uuid.uuid4().hex}", **arguments)

    def halt(self) -> None:
        """Ends everything of it at once, also what is stopped."""
        if self._node is None:
            return
        everything = self._everything()
        for process in everything:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._cluster.remove_node(self._node, allow_graceful=False)
        _gone, alive = psutil.wait_procs(everything, timeout=END_SECONDS)
        assert alive == [], f"these outlive their node: {alive}"
        self._node = None

    def cut_off(self) -> None:
        """Stops all its processes: as with a pulled cable they say nothing, and no connection ends."""
        while going := [process for process in self._everything() if _is_going(process)]:
            for process in going:
                with suppress(psutil.NoSuchProcess):
                    process.suspend()

    def processes(self, role: str) -> list[psutil.Process]:
        """Those with that text in their command line, such as Ray's name of an actor."""
        return [process for process in self._everything() if role in command_line(process)]

    def _everything(self) -> list[psutil.Process]:
        """Parents before their children."""
        found = []
        for infos in self._node.all_processes.values():
            for info in infos:
                with suppress(psutil.NoSuchProcess):
                    first = psutil.Process(info.process.pid)
                    found += [first, *first.children(recursive=True)]
        return found


class ClusterOfNodes(ClusterWithLosses[SimulatedNode]):
    """Nodes that differ in nothing but their processes; no token is asked for."""

    def __init__(self, folder: Path, num_workers: int) -> None:
        self._cluster = Cluster()
        self.head, *self.workers = (SimulatedNode(self._cluster) for _ in range(1 + num_workers))
        self.head.boot(**HEAD)
        submitted_to = Head(f"http://{self._cluster.webui_url}", dict(os.environ))
        super().__init__(submitted_to, GATEWAY, folder, folder)

    def start(self) -> None:
        # One by one: of two that start at once on one machine, one may never come to be a node.
        for number, worker in enumerate(self.workers):
            self._boot_worker(worker)
            self._wait_for_nodes(2 + number)

    def _boot_worker(self, worker: SimulatedNode) -> None:
        worker.boot(**NODE)

    def _end(self, machine: SimulatedNode) -> None:
        machine.halt()

    def _is_among(self, nodes: list[dict[str, Any]], machine: SimulatedNode) -> bool:
        return machine.node_id in {node["node_id"] for node in nodes}


def _is_going(process: psutil.Process) -> bool:
    try:
        return process.status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@contextmanager
def cluster_of_nodes(folder: Path, num_workers: int) -> Iterator[ClusterOfNodes]:
    """The nodes' environment is that of this process; `folder` is what they share."""
    with pytest.MonkeyPatch.context() as environment:
        # The job's `python` is the first one of the head's PATH.
        environment.setenv("PATH", f"{HERE}{os.pathsep}{os.environ['PATH']}")
        environment.setenv("AWS_EC2_METADATA_DISABLED", "true")
        for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
            environment.delenv(name, raising=False)
        cluster = ClusterOfNodes(folder, num_workers)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()
