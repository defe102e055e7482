"""A program: a training on a cluster of its own whose nodes are drained, lost and added.

Writes down what it saw, and what the same training is like with nothing of that.
"""

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster
from training_runs import Watch, copy_prepared, prepare, result_of, run, settings

from asclepius_ray.artifacts import Folder
from asclepius_ray.ray_session import shut_down_ray
from asclepius_ray.training import fitting

DEADLINE_SECONDS = 12
STEP_SECONDS = 0.25
MANY_EPOCHS = [
    {"kind": "notes", "epochs": 12, "learning_rate": 1e-3},
    {"kind": "instructions", "epochs": 12, "learning_rate": 1e-3},
]


class Nodes:
    """The cluster's nodes with one CPU each; the head has none and outlives them."""

    def __init__(self) -> None:
        fast = {f"health_check_{name}_ms": 1000 for name in ("initial_delay", "period", "timeout")}
        self._cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 0,
                "include_dashboard": True,
                "dashboard_port": 0,
                "_system_config": {**fast, "health_check_failure_threshold": 3},
            },
        )
        self._nodes: dict[str, Any] = {}
        self._doomed: dict[str, float] = {}
        self.add()
        self.add()
        ray.init(address=self._cluster.address, log_to_driver=False)

    def add(self) -> None:
        node = self._cluster.add_node(num_cpus=1)
        self._nodes[node.node_id] = node

    def of_rank(self, rank: int) -> str:
        """Ray Train gives the ranks out in the order of the places it has reserved."""
        tables = ray.util.placement_group_table().values()
        (places,) = (table["bundles_to_node_id"] for table in tables if table["state"] == "CREATED")
        node: str = places[rank]
        return node

    def drain(self, node_id: str) -> None:
        """Gives notice, and keeps it: the node is gone at the deadline, whatever it is doing then."""
        self._doomed[node_id] = time.monotonic() + DEADLINE_SECONDS
        command = ["drain-node", "--address", self._cluster.address, "--node-id", node_id]
        command += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "drill"]
        command += ["--deadline-remaining-seconds", str(DEADLINE_SECONDS)]
        subprocess.run([Path(sys.executable).parent / "ray", *command], check=True, capture_output=True)

    def lose(self, node_id: str) -> None:
        self._cluster.remove_node(self._nodes.pop(node_id), allow_graceful=False)

    def end(self) -> None:
        """The connection before the nodes: Ray ends a process whose node is gone with code 1."""
        shut_down_ray()
        self._cluster.shutdown()

    def lose_doomed(self) -> None:
        for node_id in [node_id for node_id, end in self._doomed.items() if time.monotonic() >= end]:
            del self._doomed[node_id]
            self.lose(node_id)


def script(nodes: Nodes) -> Iterator[Callable[[Watch], bool]]:
    """What is waited for, and what is done then."""

    def trained_on(workers: int, groups: int) -> Callable[[Watch], bool]:
        def is_so(watch: Watch) -> bool:
            last = watch.starts[-1] if watch.starts else {}
            return (
                len(watch.starts) == groups
                and last["workers"] == workers
                and watch.step >= last["step"] + 4
                and watch.executed[-1] == watch.step
            )

        return is_so

    yield trained_on(workers=2, groups=1)
    nodes.drain(nodes.of_rank(0))
    yield trained_on(workers=1, groups=2)
    nodes.add()
    yield trained_on(workers=2, groups=3)
    nodes.drain(nodes.of_rank(1))
    yield trained_on(workers=1, groups=4)
    nodes.add()
    yield trained_on(workers=2, groups=5)
    nodes.lose(nodes.of_rank(1))
    yield trained_on(workers=1, groups=6)
    yield lambda watch: False


def main(folder: Path) -> None:
    nodes = Nodes()
    prepared, unbroken, broken = (Folder(str(folder / name)) for name in ("prepared", "unbroken", "broken"))
    prepare(prepared)
    copy_prepared(prepared, unbroken)
    copy_prepared(prepared, broken)
    training = settings(phases=MANY_EPOCHS, zero_stage=3)
    run(unbroken, training, Watch())
    fitting.RESIZE_SECONDS = 3.0
    scene = script(nodes)
    awaited = [next(scene)]
    times: list[tuple[float, int]] = []

    def act(watch: Watch) -> None:
        nodes.lose_doomed()
        times.append((time.monotonic(), watch.step))
        if awaited[0](watch):
            awaited[0] = next(scene)

    watch = Watch(act=act)
    # Few checkpoints by themselves: those that save every step are due to the notices.
    elastic = settings(phases=MANY_EPOCHS, zero_stage=3, workers=[1, 2], checkpoint_steps=10)
    run(broken, elastic, watch, STEP_SECONDS)
    seen = {
        "starts": watch.starts,
        "executed": watch.executed,
        "reported": watch.reported,
        "said": watch.said,
        "longest_pause_seconds": _longest_pauses(times),
        "unbroken": asdict(result_of(unbroken)),
        "broken": asdict(result_of(broken)),
    }
    (folder / "seen.json").write_text(json.dumps(seen))
    nodes.end()


def _longest_pauses(times: list[tuple[float, int]]) -> list[float]:
    """How long no step ended, the five longest times."""
    firsts: dict[int, float] = {}
    for moment, step in times:
        firsts.setdefault(step, moment)
    moments = sorted(firsts.values())
    pauses = (later - earlier for earlier, later in itertools.pairwise(moments))
    return [round(pause, 1) for pause in sorted(pauses, reverse=True)[:5]]


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    main(Path(sys.argv[1]))
