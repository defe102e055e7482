"""A real Ray head that takes no work, with Ray's second autoscaler, whose nodes start on this machine."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from local_heads import Head, free_port, ray_node, short_link, wait_for_nodes, wait_for_port

HEAD_ID = "fffffffffffffffffffffffffffffffffffffffffffffffffff00000"
HEAD_TYPE = "ray.head.default"
"""The provider knows its head by no other name."""
OBJECT_STORE_BYTES = 100_000_000
AUTHENTICATION = {"RAY_AUTH_MODE": "disabled"}
_AUTOSCALER = {
    "RAY_FAKE_CLUSTER": "1",
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
    "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
    "RAY_NODE_TYPE_NAME": HEAD_TYPE,
    "RAY_enable_autoscaler_v2": "1",
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    # A node that is gone refuses every connection: it is known after 3 s, and not after 15.
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}


@dataclass(frozen=True)
class NodeType:
    """Nodes that come from none on; one that is idle for so long goes."""

    resources: Mapping[str, int]
    most: int
    idle_seconds: float


@contextmanager
def autoscaled_head(types: Mapping[str, NodeType], folder: Path) -> Iterator[Head]:
    """The head alone; at the end no process of it or of its nodes is left.

    A node is known by a resource of its type's name.
    """
    environment = {**os.environ, **AUTHENTICATION}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        environment.pop(name, None)
    gcs, dashboard, client = (free_port() for _ in range(3))
    config = folder / "autoscaling.json"
    config.write_text(json.dumps(_autoscaling(types, gcs)))
    with short_link(folder) as link:
        options = ["--head", "--block", "--disable-usage-stats", "--num-cpus=0"]
        options += [f"--port={gcs}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"]
        options += ["--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0"]
        options += [f"--object-store-memory={OBJECT_STORE_BYTES}", "--node-ip-address=127.0.0.1"]
        options += [f"--temp-dir={link}", f"--autoscaling-config={config}"]
        address = f"http://127.0.0.1:{dashboard}"
        with (
            ray_node(options, environment | _AUTOSCALER, folder / "head.log") as process,
            _descendants_end(process.pid),
        ):
            wait_for_port(gcs)
            wait_for_nodes(address, AUTHENTICATION, 1)
            yield Head(address, environment)


def _autoscaling(types: Mapping[str, NodeType], gcs_port: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        HEAD_TYPE: {"resources": {"CPU": 0}, "max_workers": 0, "node_config": {}},
    }
    for name, kind in types.items():
        resources = {**kind.resources, name: 1, "object_store_memory": OBJECT_STORE_BYTES}
        found[name] = {
            "resources": resources,
            "min_workers": 0,
            "max_workers": kind.most,
            "idle_timeout_s": kind.idle_seconds,
            "node_config": {},
        }
    return {
        "cluster_name": "drill",
        "max_workers": sum(kind.most for kind in types.values()),
        "provider": {
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "use_node_id_as_ip": True,
            "fake_multinode": True,
            "launch_multiple": True,
            "head_node_id": HEAD_ID,
            "gcs_address": f"127.0.0.1:{gcs_port}",
        },
        "available_node_types": found,
        "head_node_type": HEAD_TYPE,
        # What a type says itself counts before it.
        "idle_timeout_minutes": 10,
        "upscaling_speed": 1.0,
        "auth": {},
        "docker": {},
        "initialization_commands": [],
        "setup_commands": [],
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "head_start_ray_commands": [],
        "worker_start_ray_commands": [],
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
    }


@contextmanager
def _descendants_end(pid: int) -> Iterator[None]:
    """The nodes are children of the head's autoscaler, and may be process groups of their own."""
    try:
        yield
    finally:
        below = psutil.Process(pid).children(recursive=True)
        os.kill(pid, signal.SIGSTOP)
        for process in below:
            # psutil kills none that has taken over the number of another.
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(below, timeout=10)


def autoscaler() -> psutil.Process:
    """The process of this test's head that starts nodes, as children of its own."""
    (found,) = (
        child
        for child in psutil.Process().children(recursive=True)
        if any("autoscaler/v2/monitor.py" in part for part in child.cmdline())
    )
    return found


def lose_a_node() -> None:
    """As a spot machine goes: everything on it, without a word."""
    node = next(child for child in autoscaler().children() if child.name() == "raylet")
    for process in [node, *node.children(recursive=True)]:
        # Some of them end by themselves when their node is gone.
        with suppress(psutil.NoSuchProcess):
            process.kill()


@contextmanager
def no_machine_left() -> Iterator[None]:
    """Meanwhile no node comes or goes: a cloud may take minutes to give one, this machine takes seconds."""
    process = autoscaler()
    process.suspend()
    try:
        yield
    finally:
        process.resume()


Counts = dict[str, int]


def living_nodes(address: str, types: Collection[str]) -> Counts:
    """How many nodes of each type there are."""
    held = [node["resources_total"] for node in listed(address, "nodes", "state", "ALIVE")]
    return {name: sum(name in resources for resources in held) for name in types}


@dataclass
class Timeline:
    """What is counted, as it changes."""

    count: Callable[[], Counts]
    started: float = field(default_factory=time.monotonic)
    moments: list[tuple[float, Counts]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="timeline")

    def __enter__(self) -> "Timeline":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def now(self) -> float:
        return time.monotonic() - self.started

    def between(self, begin: float, end: float) -> list[Counts]:
        """The counts of that time, that with which it begins too."""
        before = [counts for moment, counts in self.moments if moment <= begin][-1:]
        return before + [counts for moment, counts in self.moments if begin < moment <= end]

    def _watch(self) -> None:
        while not self._ended.wait(0.5):
            try:
                counts = self.count()
            except httpx.HTTPError:
                continue  # A busy machine: the next look will do.
            if not self.moments or self.moments[-1][1] != counts:
                self.moments.append((self.now(), counts))


def listed(address: str, kind: str, key: str, value: str) -> list[dict[str, Any]]:
    """What the cluster's state has of a kind ("nodes", "actors", "placement_groups") with key = value."""
    query = f"limit=1000&detail=1&filter_keys={key}&filter_predicates=%3D&filter_values={value}"
    answer = httpx.get(f"{address}/api/v0/{kind}?{query}", timeout=10).raise_for_status()
    found: list[dict[str, Any]] = answer.json()["data"]["result"]["result"]
    return found
