"""HAProxy in the pods of a RayService: the folder it runs from, and the variables that turn it on. Pure."""

from pathlib import PurePosixPath

from asclepius_ray.launch.cluster.preparing import Preparation
from asclepius_ray.serving.proxy.environment import proxy_variables

VOLUME_FOLDER = "/run/haproxy"
# Of its own, so that it can be closed to others; a socket's path below it may not grow long.
PROXY_FOLDER = PurePosixPath(VOLUME_FOLDER, "serve")


def haproxy(drain_seconds: float) -> Preparation:
    """The step before Ray's start that puts the program there which Serve starts in HAProxy's place.

    Every pod needs it: Serve runs a proxy on the head and on each node with a replica. It listens where
    Serve tells it to, on the port that the service leads to.
    """
    return Preparation(
        name="haproxy",
        folder=VOLUME_FOLDER,
        command=("python", "-m", "asclepius_ray.serving.proxy.environment", str(PROXY_FOLDER)),
        variables=proxy_variables(PROXY_FOLDER, "", None, drain_seconds),
    )
