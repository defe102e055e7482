"""The variables under which Serve's controller and its proxies run HAProxy, and the folder they name.

Ray Serve reads all of them when it is imported. Where a job starts Serve they are given to the controller
alone (`serve.start`'s controller_options): its proxies and replicas inherit them, on every node and for
every job, and the process that deploys needs none of them. A Serve that runs already keeps what it was
started with. Where KubeRay starts Serve they are in the environment of every pod, and an init container makes
the folder:

    python -m asclepius_ray.serving.proxy.environment FOLDER
"""

import secrets
import shutil
import socket
import sys
from pathlib import Path, PurePath

import asclepius_ray
from asclepius_ray.errors import ServingError
from asclepius_ray.serving.proxy.launch import (
    BINARY_VARIABLE,
    BIND_VARIABLE,
    CERTIFICATE_VARIABLE,
    KEY_VARIABLE,
)

# A socket's path may have 97 bytes here, and Ray puts a node's name of 56 into it: TMPDIR is too long.
PLACE = Path("/tmp")
DEREGISTRATION_SECONDS = 5
"""How long a replica that is to go still takes requests: HAProxy needs one to two to forget it."""


def proxy_variables(
    folder: PurePath, bind: str, tls: tuple[str, str] | None, drain_seconds: float
) -> dict[str, str]:
    """What the controller's environment gets.

    `bind` is the HOST:PORT of the open side, "" = where Serve listens; `tls` are the files of the certificate
    and of its key.
    """
    # An earlier HAProxy, which still holds streams, is not ended before they are.
    hard_stop_seconds = int(drain_seconds) + 60
    variables = {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        # Its default holds a thousand log lines back, the audit among them.
        "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1",
        BINARY_VARIABLE: str(folder / "haproxy"),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": str(hard_stop_seconds),
        "RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER": "1s",
        # Its default of 5 s ends a proxy that a busy machine has not started yet, and begins anew.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(DEREGISTRATION_SECONDS),
    }
    if bind:
        variables[BIND_VARIABLE] = bind
    if tls is not None:
        variables[CERTIFICATE_VARIABLE], variables[KEY_VARIABLE] = tls
    return variables


def new_folder() -> Path:
    """The name of a folder that only one Serve has; a path of 23 bytes."""
    return PLACE / f"asclepius-{secrets.token_hex(4)}"


def make_folder(folder: Path) -> None:
    """Makes it on this node, closed to other users, with the program that starts HAProxy in it."""
    try:
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise ServingError(f"{folder} cannot be made for HAProxy's sockets: {error.strerror}") from None
    package = Path(asclepius_ray.__file__).parent.parent
    program = folder / "haproxy"
    program.write_text(
        "#!/bin/sh\n"
        f'export PYTHONPATH="{package}${{PYTHONPATH:+:$PYTHONPATH}}"\n'
        f'exec "{sys.executable}" -P -m asclepius_ray.serving.proxy.launch "$@"\n'
    )
    program.chmod(0o700)


def remove_folder(folder: Path) -> None:
    """Takes the folder away on this node, once nothing runs from it."""
    shutil.rmtree(folder, ignore_errors=True)


def free_port(host: str) -> int:
    """A TCP port of this node on which nobody listens now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def main() -> None:
    folder = Path(sys.argv[1])
    # A pod whose network is set up anew runs its init containers again.
    remove_folder(folder)
    make_folder(folder)


if __name__ == "__main__":
    main()
