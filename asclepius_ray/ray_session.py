"""One connection to Ray for a whole job: RAY_ADDRESS, the cluster of a submitted job, or a new local one."""

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import asclepius_ray
from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import AsclepiusError, ConfigError, first_line
from asclepius_ray.progress import Progress

# A laptop with two cores still has to hold two training workers and a data task at once; they
# share its cores in time, which Ray's accounting of whole CPUs would forbid.
LOCAL_MIN_LOGICAL_CPUS = 4
# Ray gives its workers the least of a busy machine. A replica is what the machine is there for: every other
# process would be served before its next token.
WORKER_NICENESS = {"RAY_worker_niceness": "0"}
CONNECT_SECONDS = 10.0
READING_THREADS = ("Prefetcher", "iter_threaded")
LONGEST_READING_SECONDS = 2.0
CLUSTER_CHECK_SECONDS = 0.5
LONGEST_END_SECONDS = 10.0
"""What a command has for its own end once its cluster has gone; Ray itself would try for a minute."""
JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"


def is_submitted_job() -> bool:
    """Whether this process was started by Ray's job server."""
    return JOB_VARIABLE in os.environ


@contextlib.contextmanager
def ray_session(progress: Progress, serves: bool = False) -> Iterator[None]:
    """Connects to Ray and disconnects; started at most once a job, and only if a stage has work.

    `serves`: a local cluster is there for replicas alone.
    """
    on_sigterm = signal.getsignal(signal.SIGTERM)
    import ray

    progress.begin("connecting to Ray")
    _quieten()
    address = os.environ.get("RAY_ADDRESS", "")
    ends_in_order = threading.Event()
    if address or is_submitted_job():
        _connect(address or "auto")
    else:
        if serves:
            os.environ.update({name: os.environ.get(name, value) for name, value in WORKER_NICENESS.items()})
        _start_own_cluster()
        _end_with_own_cluster(ends_in_order, progress)
    # Importing ray puts its own handler in place, which ends the process with code 15 and no word.
    signal.signal(signal.SIGTERM, on_sigterm)
    interrupted = False
    try:
        yield
    except KeyboardInterrupt:
        # The process is about to end at once, and Ray with it: see the command's handling of it.
        interrupted = True
        raise
    except ray.exceptions.RayError as error:
        if (cause := cause_of(error)) is error:
            raise
        raise cause from None
    finally:
        if not interrupted:
            ends_in_order.set()
            shut_down_ray()


def shut_down_ray() -> None:
    """Disconnects once no thread of Ray Data's asks for anything any more.

    Where reading was broken off, its threads go on for a moment; one that meets a Ray that is gone ends the
    whole process with code 1, before its error has been told.
    """
    import ray

    # For all of them together: one that waits for a reader who has gone away never ends by itself.
    deadline = time.monotonic() + LONGEST_READING_SECONDS
    for thread in threading.enumerate():
        if thread.name in READING_THREADS:
            thread.join(max(0.0, deadline - time.monotonic()))
    ray.shutdown()


def _start_own_cluster() -> None:
    import ray

    try:
        ray.init(
            address="local",
            num_cpus=max(LOCAL_MIN_LOGICAL_CPUS, os.cpu_count() or 1),
            log_to_driver=False,
            logging_level=logging.WARNING,
        )
    except Exception as error:
        # Of no kind of its own where a node is not up after 30 s, which no setting of Ray's changes.
        raise AsclepiusError(
            f"Ray could not start a cluster on this machine ({first_line(error)}); mend that, or run the "
            "same command again when less runs beside it: a node has to be up within 30 s"
        ) from error


def _end_with_own_cluster(ends_in_order: threading.Event, progress: Progress) -> None:
    """Ends this process when the cluster that it has started is gone before its time: every call would hang.

    A signal to the whole process group, as `timeout` and systemd send it, reaches Ray's processes too.
    """
    import ray

    address = ray._private.worker._global_node.gcs_address

    def watch() -> None:
        # Its process may hang for a minute after a SIGTERM that it has obeyed.
        while _listens(address):
            if ends_in_order.wait(CLUSTER_CHECK_SECONDS):
                return
        if ends_in_order.wait(LONGEST_END_SECONDS):
            return
        progress.say(
            "error: the local Ray cluster of this command has ended; a signal to its whole process group "
            "ends it too (let systemd send it to the command alone: KillMode=mixed). What is finished is "
            "kept: run the same command again"
        )
        os._exit(1)

    threading.Thread(target=watch, name="own cluster", daemon=True).start()


def cause_of(error: BaseException) -> BaseException:
    """The error that a worker met, without Ray's wrapping; Ray's own only where our code is at fault."""
    import ray

    found: BaseException | None = error
    while found is not None:
        if isinstance(found, AsclepiusError | OSError) and type(found).__module__ != "ray.exceptions":
            return found
        found = getattr(found, "cause", None) or found.__cause__
    task_error: type[BaseException] = ray.exceptions.RayTaskError
    if isinstance(error, task_error):
        return error
    # A worker, an actor or a node that died: no code of ours is to blame, and no row is shown.
    return AsclepiusError(
        f"Ray lost what it was working with ({type(error).__name__}), most often for want of memory; what is "
        "finished is kept: run the same command again, with fewer workers if it recurs"
    )


def check_root_is_shared(root: Folder, probe: str) -> None:
    """A ConfigError if a node of the cluster does not see the file `probe` of a local root.

    Nodes that join later cannot be asked.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    if not root.is_local or len(nodes) < 2:
        return
    sees = ray.remote(_sees)
    seen = [
        sees.options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
            root, probe
        )
        for node in nodes
    ]
    blind = len(nodes) - sum(ray.get(seen))
    if blind:
        raise ConfigError(
            f"the root {root.uri} is a local folder that {blind} of the cluster's {len(nodes)} nodes do not "
            "see; use storage that all of them share, such as s3://BUCKET/run"
        )


def _sees(root: Folder, probe: str) -> bool:
    return root.exists(probe)


def _connect(address: str) -> None:
    import ray

    try:
        _require_listener(address)
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.WARNING,
            runtime_env=None if is_submitted_job() else _own_code(),
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"there is no Ray cluster at RAY_ADDRESS={address} ({first_line(error)}); it takes HOST:6379, "
            "as `ray start --head` prints it. To send a job through the dashboard use `asclepius submit`"
        ) from None


def _require_listener(address: str) -> None:
    """An OSError if nobody listens at HOST:PORT: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "://" not in address:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()


def _listens(address: str) -> bool:
    """False only where the port refuses: a busy machine may be late with everything else."""
    try:
        _require_listener(address)
    except OSError as error:
        return not isinstance(error, ConnectionRefusedError)
    return True


def _own_code() -> dict[str, object]:
    """Sends this package along, so that the cluster's workers run the driver's code."""
    return {"py_modules": [str(Path(asclepius_ray.__file__).parent)]}


def _quieten() -> None:
    """Leaves Ray's warnings and errors, and takes its progress reports: ours replace them."""
    # Its import sets up its own logging, which would undo the levels below.
    import ray.data  # noqa: F401

    os.environ.setdefault("RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS", "0")
    for name in ("ray", "ray.data", "ray.train", "ray.serve"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Says that token authentication is on, which is what we want.
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
