"""A Ray cluster of a head and workers that are hosts of their own, started as on real machines."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from local_heads import Head
from separate_hosts import Host, Hosts
from submitted_jobs import submit

HERE = Path(sys.executable).parent
START_SECONDS = 90.0
LOOK_SECONDS = 0.2
# A head asks each node whether it lives, and by Ray's defaults needs half a minute to give one up.
SOON_NOTICED = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "4",
}


class ClusterOfHosts:
    """One CPU a host, the head too: what needs two has to use two hosts."""

    def __init__(self, hosts: Hosts, authentication: dict[str, str]) -> None:
        self.hosts = hosts
        self.head, *self.workers = hosts.hosts
        self._cut_off: list[Host] = []
        self._jobs: list[subprocess.Popen[str]] = []
        address = f"http://{self.head.address}:8265"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        # No proxy stands between the hosts, whatever the machine has, and none of them is Amazon's, of which
        # a client of S3 would wait to hear.
        kept |= {**authentication, "NO_PROXY": "*", "no_proxy": "*", "AWS_EC2_METADATA_DISABLED": "true"}
        self._submitted_to = Head(address, kept)
        # The job's `python` is the first one of the head's PATH; the code comes with the job.
        self._of_nodes = {**kept, **SOON_NOTICED, "PATH": f"{HERE}{os.pathsep}{kept['PATH']}"}
        self._of_nodes.pop("PYTHONPATH", None)
        self._token = authentication["RAY_AUTH_TOKEN"]

    def start(self) -> None:
        self._boot(self.head, "--head", "--port=6379", "--dashboard-host=0.0.0.0")
        self._wait_for({self.head.address})
        for worker in self.workers:
            self._boot_worker(worker)
        self._wait_for({host.address for host in self.hosts.hosts})

    def submit(self, root: str, *overrides: str, shared: Sequence[Path] = ()) -> subprocess.Popen[str]:
        """Submits the pipeline, from this machine."""
        job = submit(self._submitted_to, "pipeline", root, *overrides, shared=shared)
        self._jobs.append(job)
        return job

    def stop(self) -> None:
        """Whoever has made the hosts takes them away; they are as before `start`."""
        for job in self._jobs:
            job.kill()
            job.wait()
        for host in self.hosts.hosts:
            host.halt()
            host.join()

    def cut_off(self, role: str) -> None:
        """Cuts off a host beside the head on which such a process is at work; waits for one."""
        found: list[Host] = []

        def is_there() -> bool:
            reached = [worker for worker in self.workers if worker not in self._cut_off]
            found[:] = [worker for worker in reached if worker.processes(role)]
            return bool(found)

        self.wait_until(is_there, START_SECONDS, f"no host has a {role}")
        found[0].cut_off()
        self._cut_off.append(found[0])

    def wait_until(self, condition: Callable[[], bool], seconds: float, complaint: str) -> None:
        """Meanwhile each host that was cut off gets a successor, once Ray has noticed that it is gone."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{complaint} within {seconds:.0f} s"
            self._replace_lost()
            time.sleep(LOOK_SECONDS)

    def _replace_lost(self) -> None:
        if not self._cut_off:
            return
        alive = self._alive()
        for host in [host for host in self._cut_off if host.address not in alive]:
            # Not before: the end of its processes would break connections that nobody has noticed yet.
            self._cut_off.remove(host)
            host.halt()
            host.join()
            self._boot_worker(host)

    def addresses_of(self, class_name: str) -> set[str]:
        """Of the hosts on which an actor with that in its class's name has been."""
        addresses = {node["node_id"]: node["node_ip"] for node in self._list("nodes")}
        return {
            addresses[actor["node_id"]]
            for actor in self._list("actors")
            if class_name in actor["class_name"] and actor["node_id"] in addresses
        }

    def _boot_worker(self, worker: Host) -> None:
        self._boot(worker, f"--address={self.head.address}:6379")

    def _boot(self, host: Host, *options: str) -> None:
        common = ["--block", "--disable-usage-stats", "--num-cpus=1", "--object-store-memory=100000000"]
        host.boot([HERE / "ray", "start", *options, *common], self._of_nodes)

    def _wait_for(self, addresses: set[str]) -> None:
        def are_there() -> bool:
            try:
                return self._alive() == addresses
            except httpx.HTTPError:
                return False

        self.wait_until(are_there, START_SECONDS, f"the cluster does not come to have the nodes {addresses}")

    def _alive(self) -> set[str]:
        return {node["node_ip"] for node in self._list("nodes") if node["state"] == "ALIVE"}

    def _list(self, kind: str) -> list[dict[str, Any]]:
        answer = httpx.get(
            f"{self._submitted_to.address}/api/v0/{kind}?limit=10000",
            headers={"Authorization": f"Bearer {self._token}"},
            timeout=10,
            trust_env=False,
        )
        found: list[dict[str, Any]] = answer.raise_for_status().json()["data"]["result"]["result"]
        return found


@contextmanager
def cluster_of_hosts(hosts: Hosts, authentication: dict[str, str]) -> Iterator[ClusterOfHosts]:
    cluster = ClusterOfHosts(hosts, authentication)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
