"""A program: two Ray nodes, and a notice to the machine of one of them while it works.

Writes down what became of the work, before the notice and after it.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import ray
from metadata_server import metadata_server
from ray.cluster_utils import Cluster
from ray.core.generated import autoscaler_pb2, autoscaler_pb2_grpc
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

NOTICE_SECONDS = 60
WAIT_SECONDS = 60.0
HELD_SECONDS = 4.0
NUM_TASKS = 12


@ray.remote(num_cpus=1)
def hold(file: Path) -> str:
    """Works until the file is there."""
    while not file.exists():
        time.sleep(0.05)
    return ray.get_runtime_context().get_node_id()


@ray.remote(num_cpus=1, scheduling_strategy="SPREAD")
def work() -> str:
    time.sleep(0.1)
    return ray.get_runtime_context().get_node_id()


def await_that(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.05)


def draining() -> dict[str, int]:
    """The nodes that Ray drains, with their deadlines in milliseconds."""
    found: dict[str, int] = ray._private.state.state.get_draining_nodes()
    return found


def alive() -> list[str]:
    return [node["NodeID"] for node in ray.nodes() if node["Alive"]]


def is_guarded(address: str) -> bool:
    """Whether the head refuses a caller without a token."""
    with grpc.insecure_channel(address) as channel:
        stub = autoscaler_pb2_grpc.AutoscalerStateServiceStub(channel)
        try:
            stub.GetClusterResourceState(
                autoscaler_pb2.GetClusterResourceStateRequest(), timeout=WAIT_SECONDS
            )
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.UNAUTHENTICATED:
                raise
            return True
    return False


def give_notice(doomed: str, file: Path, log: Path) -> dict[str, Any]:
    on_doomed = NodeAffinitySchedulingStrategy(doomed, soft=False)
    held = hold.options(scheduling_strategy=on_doomed).remote(file)
    before = ray.get([work.remote() for _ in range(NUM_TASKS)])
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=NOTICE_SECONDS)
    with metadata_server() as service, log.open("w") as output:
        command = [sys.executable, "-m", "asclepius_ray.cli", "drain-watch", "--provider", "aws"]
        command += ["--node", doomed, "--address", service.address, "--poll-seconds", "0.2"]
        watch = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        await_that(lambda: "watching" in log.read_text())
        drained_before = draining()
        service.put("instance-action", json.dumps({"action": "terminate", "time": end.isoformat()}))
        await_that(lambda: bool(draining()))
        drained_after = draining()
        after = ray.get([work.remote() for _ in range(NUM_TASKS)])
        time.sleep(HELD_SECONDS)
        still_held, still_watched = not ray.wait([held], timeout=0)[0], watch.poll() is None
        file.touch()
        result = ray.get(held, timeout=WAIT_SECONDS)
        code = watch.wait(WAIT_SECONDS)
    await_that(lambda: doomed not in alive())
    return {
        "doomed": doomed,
        "notice_end_unix": end.timestamp(),
        "watch_end_unix": time.time(),
        "drained_before": drained_before,
        "drained_after": drained_after,
        "before": before,
        "after": after,
        "still_held": still_held,
        "still_watched": still_watched,
        "held_result": result,
        "exit_code": code,
        "said": log.read_text().splitlines(),
        "num_alive": len(alive()),
    }


def main(folder: Path) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    doomed = cluster.add_node(num_cpus=2).node_id
    ray.init(address=cluster.address, log_to_driver=False)
    seen = give_notice(doomed, folder / "go-on", folder / "watch.log")
    seen["is_guarded"] = is_guarded(cluster.address)
    (folder / "seen.json").write_text(json.dumps(seen))
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
