"""The figures of the nodes outlive a moment without an answer of the cluster."""

import subprocess
import sys

WITHOUT_A_CLUSTER = """
import threading, time
from asclepius_ray import node_watch
node_watch.LOOK_SECONDS = 0.1
with node_watch.watching_nodes("mine"):
    time.sleep(0.5)
    assert "node watch" in {thread.name for thread in threading.enumerate()}
"""


def test_the_watch_goes_on_where_the_cluster_does_not_answer() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_A_CLUSTER], capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stderr) == (0, "")
