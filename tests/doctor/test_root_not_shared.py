"""A node that does not see the root: a real Ray node to which that folder is another one."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from doctor_command import RUN_FILE, examine_at, line_of, sets
from local_heads import started_head, wait_for_nodes

pytestmark = pytest.mark.long

AUTHENTICATION = {"RAY_AUTH_MODE": "disabled"}
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
    # Processes of their own: a second cluster within this one would take the place of the shared one.
    with (
        started_head(AUTHENTICATION, tmp_path, num_workers=0) as head,
        node_with_another(folder, head.gcs),
    ):
        wait_for_nodes(head.address, AUTHENTICATION, 2)
        code, lines = examine_at(head.gcs, RUN_FILE, "--no-dry-run", *sets(root=folder / "root"))
    assert code == 1, lines
    found = line_of(lines, "storage")
    assert found.startswith("problem")
    assert "1 of the 2 nodes do not see" in found
    assert not (folder / "root" / ".doctor").exists()
