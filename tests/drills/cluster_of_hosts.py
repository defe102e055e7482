"""A Ray cluster of a head and workers that are hosts of their own, started as on real machines."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster_with_losses import SOON_NOTICED, ClusterWithLosses
from local_heads import Head
from separate_hosts import SHARED_FOLDER, Host, Hosts

HERE = Path(sys.executable).parent


class ClusterOfHosts(ClusterWithLosses[Host]):
    """Nodes with addresses, processes and disks of their own."""

    def __init__(self, hosts: Hosts, authentication: dict[str, str]) -> None:
        self.head, *self.workers = hosts.hosts
        address = f"http://{self.head.address}:8265"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        # No proxy stands between the hosts, whatever the machine has, and none of them is Amazon's, of which
        # a client of S3 would wait to hear.
        kept |= {**authentication, "NO_PROXY": "*", "no_proxy": "*", "AWS_EC2_METADATA_DISABLED": "true"}
        token = authentication["RAY_AUTH_TOKEN"]
        super().__init__(Head(address, kept), hosts.gateway, SHARED_FOLDER, hosts.shared, token)
        soon_noticed = {f"RAY_{name}": str(value) for name, value in SOON_NOTICED.items()}
        # The job's `python` is the first one of the head's PATH; the code comes with the job.
        self._of_nodes = {**kept, **soon_noticed, "PATH": f"{HERE}{os.pathsep}{kept['PATH']}"}
        self._of_nodes.pop("PYTHONPATH", None)

    def start(self) -> None:
        self._boot(self.head, "--head", "--port=6379", "--dashboard-host=0.0.0.0")
        self._wait_for_nodes(1)
        for worker in self.workers:
            self._boot_worker(worker)
        self._wait_for_nodes(1 + len(self.workers))

    def _boot_worker(self, worker: Host) -> None:
        self._boot(worker, f"--address={self.head.address}:6379")

    def _boot(self, host: Host, *options: str) -> None:
        common = ["--block", "--disable-usage-stats", "--num-cpus=1", "--object-store-memory=100000000"]
        host.boot([HERE / "ray", "start", *options, *common], self._of_nodes)

    def _end(self, machine: Host) -> None:
        machine.halt()
        machine.join()

    def _is_among(self, nodes: list[dict[str, Any]], machine: Host) -> bool:
        return machine.address in {node["node_ip"] for node in nodes}


@contextmanager
def cluster_of_hosts(hosts: Hosts, authentication: dict[str, str]) -> Iterator[ClusterOfHosts]:
    """Whoever has made the hosts takes them away; they are as before."""
    cluster = ClusterOfHosts(hosts, authentication)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
