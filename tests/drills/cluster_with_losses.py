"""A Ray cluster of a head and workers, whatever they stand on, of which drills cut some off."""

import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import httpx
import psutil
from local_heads import Head
from submitted_jobs import submit

START_SECONDS = 90.0
LOOK_SECONDS = 0.2
# A head asks each node whether it lives, and by Ray's defaults needs half a minute to give one up.
SOON_NOTICED = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 3000,
    "health_check_failure_threshold": 4,
}


class Machine(Protocol):
    """What a node of Ray stands on."""

    def processes(self, role: str) -> list[psutil.Process]:
        """Those with that text in their command line, such as Ray's name of an actor."""

    def cut_off(self) -> None:
        """Makes it silent: nobody is told, and no connection ends by itself."""


M = TypeVar("M", bound=Machine)


class ClusterWithLosses(ABC, Generic[M]):
    """One CPU a node, the head's too: what needs two has to use two nodes."""

    head: M
    workers: list[M]

    def __init__(
        self, submitted_to: Head, gateway: str, shared: Path, shared_here: Path, token: str = ""
    ) -> None:
        self.gateway = gateway
        """The address of this machine, as the nodes reach it."""
        self.shared = shared
        """A folder that all nodes mount, as they call it."""
        self.shared_here = shared_here
        """The same as this machine calls it."""
        self._submitted_to = submitted_to
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._cut_off: list[M] = []
        self._jobs: list[subprocess.Popen[str]] = []

    def submit(self, root: str, *overrides: str, shared: Sequence[Path] = ()) -> subprocess.Popen[str]:
        """Submits the pipeline, from this machine."""
        job = submit(self._submitted_to, "pipeline", root, *overrides, shared=shared)
        self._jobs.append(job)
        return job

    def stop(self) -> None:
        for job in self._jobs:
            job.kill()
            job.wait()
        for machine in [*self.workers, self.head]:
            self._end(machine)

    def cut_off(self, role: str) -> None:
        """Cuts off a worker on which such a process is at work; waits for one."""
        found: list[M] = []

        def is_there() -> bool:
            reached = [worker for worker in self.workers if worker not in self._cut_off]
            found[:] = [worker for worker in reached if worker.processes(role)]
            return bool(found)

        self.wait_until(is_there, START_SECONDS, f"no worker has a {role}")
        found[0].cut_off()
        self._cut_off.append(found[0])

    def wait_until(self, condition: Callable[[], bool], seconds: float, complaint: str) -> None:
        """Meanwhile each worker that was cut off gets a successor, once Ray has noticed that it is gone."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{complaint} within {seconds:.0f} s"
            self._replace_lost()
            time.sleep(LOOK_SECONDS)

    def nodes_of(self, class_name: str) -> set[str]:
        """The ids of the nodes on which an actor with that in its class's name has been."""
        actors = self._list("actors")
        return {actor["node_id"] for actor in actors if class_name in actor["class_name"]} - {None, ""}

    def _replace_lost(self) -> None:
        if not self._cut_off:
            return
        alive = self._list_alive()
        for worker in [worker for worker in self._cut_off if not self._is_among(alive, worker)]:
            # Not before: the end of its processes would break connections that nobody has noticed yet.
            self._cut_off.remove(worker)
            self._end(worker)
            self._boot_worker(worker)

    @abstractmethod
    def _boot_worker(self, worker: M) -> None:
        """Makes a new node of the machine, on which nothing runs."""

    @abstractmethod
    def _end(self, machine: M) -> None:
        """Ends everything on it at once, whether it is cut off or not."""

    @abstractmethod
    def _is_among(self, nodes: list[dict[str, Any]], machine: M) -> bool:
        """Whether its present node is one of those, which Ray has listed."""

    def _wait_for_nodes(self, number: int) -> None:
        def are_there() -> bool:
            try:
                return len(self._list_alive()) == number
            except httpx.HTTPError:
                return False

        self.wait_until(are_there, START_SECONDS, f"the cluster does not come to have {number} nodes")

    def _list_alive(self) -> list[dict[str, Any]]:
        return [node for node in self._list("nodes") if node["state"] == "ALIVE"]

    def _list(self, kind: str) -> list[dict[str, Any]]:
        answer = httpx.get(
            f"{self._submitted_to.address}/api/v0/{kind}?limit=10000",
            headers=self._headers,
            timeout=10,
            trust_env=False,
        )
        found: list[dict[str, Any]] = answer.raise_for_status().json()["data"]["result"]["result"]
        return found
