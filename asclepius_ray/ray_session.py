"""One connection to Ray for a whole job: RAY_ADDRESS, the cluster of a submitted job, or a new local one."""

import contextlib
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import asclepius_ray
from asclepius_ray.errors import AsclepiusError
from asclepius_ray.progress import Progress

# A laptop with two cores still has to hold two training workers and a data task at once; they
# share its cores in time, which Ray's accounting of whole CPUs would forbid.
LOCAL_MIN_LOGICAL_CPUS = 4
JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"


def is_submitted_job() -> bool:
    """Whether this process was started by Ray's job server."""
    return JOB_VARIABLE in os.environ


@contextlib.contextmanager
def ray_session(progress: Progress) -> Iterator[None]:
    """Connects to Ray and disconnects; started at most once a job, and only if a stage has work."""
    on_sigterm = signal.getsignal(signal.SIGTERM)
    import ray

    progress.begin("connecting to Ray")
    _quieten()
    address = os.environ.get("RAY_ADDRESS", "")
    if address or is_submitted_job():
        ray.init(
            address=address or "auto",
            log_to_driver=False,
            logging_level=logging.WARNING,
            runtime_env=None if is_submitted_job() else _own_code(),
        )
    else:
        ray.init(
            address="local",
            num_cpus=max(LOCAL_MIN_LOGICAL_CPUS, os.cpu_count() or 1),
            log_to_driver=False,
            logging_level=logging.WARNING,
        )
    # Importing ray puts its own handler in place, which ends the process with code 15 and no word.
    signal.signal(signal.SIGTERM, on_sigterm)
    try:
        yield
    except ray.exceptions.RayError as error:
        raise cause_of(error) from error
    finally:
        ray.shutdown()


def cause_of(error: BaseException) -> BaseException:
    """The error that a worker met, without Ray's wrapping; Ray's own where there is none below."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, AsclepiusError | OSError) and type(found).__module__ != "ray.exceptions":
            return found
        found = getattr(found, "cause", None) or found.__cause__
    return error


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
