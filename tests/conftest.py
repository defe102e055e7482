"""What all tests share: one real Ray cluster of two nodes, the real data beside the project."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

# Both sides of every cluster that a test starts agree on this; the tests of token
# authentication set it anew for the processes that they start.
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS"] = "0"

import pytest
from canaries import leaking_files, leaks_since

# A shell that starts the tests in the background has them ignore Ctrl-C, and so all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

STARTED_UNIX = time.time()
PROJECT = Path(__file__).resolve().parents[1]
DRILLS = PROJECT / "tests" / "drills"
SHARED_DATA = PROJECT.parent / "shared" / "data"


LONGEST_FIRST = (
    "test_pipeline.py",
    "test_stage.py",
    "test_synthesis_troubles.py",
    "test_synthesis_losses.py",
    "test_training_stage.py",
    "test_serving_stage.py",
    "test_clean_ends.py",
    "test_checkpoint_exactness.py",
    "test_doctor.py",
    "test_submit.py",
    "test_whole_synthesis.py",
    "test_packed_training.py",
    "test_realism_job.py",
    "test_front_on_ray.py",
    "test_lease_in_a_bucket.py",
    "test_seeing.py",
    "test_web_page.py",
    "test_evaluated_models.py",
)
"""Files of more than a minute: one that begins last would leave a core without work."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        name = item.path.name
        return LONGEST_FIRST.index(name) if name in LONGEST_FIRST else len(LONGEST_FIRST)

    items.sort(key=place)
    for item in items:
        if DRILLS in item.path.parents:
            item.add_marker("whole")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A word of a patient in any log of the whole run is a failure of it, whichever process wrote it."""
    if hasattr(session.config, "workerinput"):
        return
    scratch: pytest.TempPathFactory = session.config._tmp_path_factory  # type: ignore[attr-defined]
    if leaks := leaks_since(STARTED_UNIX, scratch.getbasetemp()):
        raise pytest.UsageError(f"logs hold patients' text: {leaks}")


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[str]:
    """The address of a cluster of two nodes with four logical CPUs each; the driver is connected.

    At its end no log of any of its processes may hold a word of a patient: that is an error of the run.
    """
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 4, "include_dashboard": True, "dashboard_port": 0}
    )
    cluster.add_node(num_cpus=4)
    from asclepius_ray.ray_session import shut_down_ray

    ray.init(address=cluster.address, log_to_driver=False)
    # A thread of Serve's that outlives the last test would connect this process anew while all goes down.
    ray._private.auto_init_hook.enable_auto_connect = False
    logs = Path(ray._private.worker.global_worker.node.get_logs_dir_path())
    yield cluster.address
    shut_down_ray()
    cluster.shutdown()
    leaks = leaking_files(logs)
    assert leaks == [], f"logs hold patients' text: {leaks}"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data; a test that needs it is skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the real data are not beside the project ({SHARED_DATA.name}/ is absent)")
    return SHARED_DATA
