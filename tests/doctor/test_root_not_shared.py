"""A node that does not see the root: a real Ray node to which that folder is another one."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from doctor_command import RUN_FILE, examine_at, line_of, sets
from ray.cluster_utils import Cluster

pytestmark = pytest.mark.whole

ELSEWHERE = 'mount -t tmpfs none "$0" && exec "$@"'


@contextmanager
def node_with_another(folder: Path, address: str) -> Iterator[None]:
    """A node in a mount namespace of its own, where `folder` is empty and nobody else's."""
    ray = Path(sys.executable).parent / "ray"
    start = [str(ray), "start", f"--address={address}", "--num-cpus=2", "--block", "--disable-usage-stats"]
    process = subprocess.Popen(
        ["unshare", "--mount", "--map-root-user", "sh", "-c", ELSEWHERE, str(folder), *start],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=30)


def can_mount(folder: Path) -> bool:
    if shutil.which("unshare") is None:
        return False
    asked = ["unshare", "--mount", "--map-root-user", "sh", "-c", ELSEWHERE, str(folder), "true"]
    return subprocess.run(asked, capture_output=True, check=False).returncode == 0


def test_a_root_that_a_node_does_not_see_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    if not can_mount(folder):
        pytest.skip("this machine lets no process have mounts of its own (unshare)")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4})
    try:
        with node_with_another(folder, cluster.address):
            cluster_has(cluster, 2)
            code, lines = examine_at(cluster.address, RUN_FILE, "--no-dry-run", *sets(root=folder / "root"))
    finally:
        # Not `shutdown`: that also cuts this process off from the store of the cluster that all tests share.
        cluster.remove_node(cluster.head_node)
    assert code == 1, lines
    found = line_of(lines, "storage")
    assert found.startswith("problem")
    assert "1 of the 2 nodes do not see" in found
    assert not (folder / "root" / ".doctor").exists()


def cluster_has(cluster: Cluster, num_nodes: int) -> None:
    import ray._private.services  # noqa: F401
    from ray._raylet import GcsClient

    client = GcsClient(address=cluster.address)
    deadline = time.monotonic() + 60
    while sum(node.state == 0 for node in client.get_all_node_info().values()) < num_nodes:
        assert time.monotonic() < deadline, "the second node has not come"
        time.sleep(0.2)
