"""How long a job's driver may take to end in order, once it was told to stop."""

import math

from asclepius_ray.run import Run

JOB_STOP_SECONDS = 600
"""To flush and save: a training ends its step, its validation and its checkpoint. Ray kills a driver after
3 s unless it is told otherwise; one that has ended is not waited for."""
AFTER_DRAIN_SECONDS = 60.0
"""What a server needs beyond `serving.drain_seconds`."""


def stop_seconds(run: Run) -> int:
    """How long `ray job stop` waits for the driver of this run; most end long before."""
    return math.ceil(max(JOB_STOP_SECONDS, run.serving.drain_seconds + AFTER_DRAIN_SECONDS))
