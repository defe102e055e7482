"""Several hosts on one machine: network namespaces on a bridge, with processes and disks of their own.

A host sees an address, a host name, processes, a /tmp, a /dev/shm and a home that no other one sees, and not
the project's code: whatever a job needs there has to come by the network. SHARED_FOLDER alone is the same on
all of them, as on nodes that mount NFS. The machine itself stands at the bridge's address.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

import asclepius_ray

SHARED_FOLDER = Path("/mnt")
HOME = Path("/tmp")
END_SECONDS = 20.0
_PREFIX = "asc"
_NAME = re.compile(rf"{_PREFIX}(\d+)(-\d+)?")
# What a host is, before its first process begins. Its name leads to loopback, as Debian's installer has it;
# names of others are refused at once, where a server of names that cannot be reached would be waited for.
_BOOT = """
set -e
hostname "$1"
printf '127.0.0.1 localhost\\n127.0.1.1 %s\\n' "$1" > "$2/hosts"
mount --bind "$2/hosts" /etc/hosts
echo nameserver 127.0.0.1 > "$2/resolv.conf"
mount --bind "$2/resolv.conf" "$(readlink -f /etc/resolv.conf)"
mount --bind "$3" "$4"
mount -t tmpfs code "$5"
mount -t tmpfs shm /dev/shm
mount --bind "$2/tmp" /tmp
shift 5
cd /tmp
exec "$@"
"""


class Host:
    """One host; nothing runs on it before `boot`."""

    def __init__(self, name: str, address: str, folder: Path, shared: Path) -> None:
        self.name = name
        """Also that of its network namespace and of its cable."""
        self.address = address
        self.log = folder / "first_process.log"
        self.disk = folder / "tmp"
        """Where its /tmp, and with it its HOME, lies on this machine."""
        self._folder, self._shared = folder, shared
        self._first: subprocess.Popen[bytes] | None = None

    def boot(self, command: Sequence[str | Path], environment: Mapping[str, str]) -> None:
        """Runs the command as the host's first process: all that it starts ends with it, or with this one."""
        assert self._first is None, f"{self.name} is running"
        self.disk.mkdir(parents=True, exist_ok=True)
        alone = ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"]
        places = [self._folder, self._shared, SHARED_FOLDER, Path(asclepius_ray.__file__).parent]
        with self.log.open("ab") as output:
            self._first = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", self.name, *alone),
                    *("sh", "-c", _BOOT, "boot", self.name, *places, *command),
                ],
                env={**environment, "HOME": str(HOME), "XDG_CACHE_HOME": str(HOME / "cache")},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def halt(self) -> None:
        """Ends everything on the host at once, as when its power fails; its disk stays."""
        if self._first is not None:
            self._first.kill()
            self._first.wait(timeout=END_SECONDS)
            self._first = None
            _end_processes(self.name)

    def cut_off(self) -> None:
        """Pulls the cable: nobody is told, and no connection ends by itself."""
        _run("ip", "link", "set", self.name, "down")

    def join(self) -> None:
        _run("ip", "link", "set", self.name, "up")

    def processes(self, role: str) -> list[psutil.Process]:
        """Those with that text in their command line, such as Ray's name of an actor."""
        return [process for process in _processes_in(self.name) if role in command_line(process)]


@dataclass(frozen=True)
class Hosts:
    """All hosts of one network."""

    gateway: str
    """The address of this machine, as the hosts reach it."""
    shared: Path
    """Where SHARED_FOLDER of the hosts lies on this machine."""
    hosts: tuple[Host, ...]


def why_no_hosts() -> str:
    """The reason why this machine cannot make hosts; "" where it can."""
    if Path(sys.prefix).is_relative_to("/tmp"):
        return "the environment lies in /tmp, and each host has a /tmp of its own"
    name = f"{_PREFIX}{os.getpid()}"
    alone = ["unshare", "--mount", "--uts", "--pid", "--fork", "mount", "-t", "tmpfs", "none", "/mnt"]
    try:
        _run("ip", "netns", "add", name)
        try:
            _run("ip", "netns", "exec", name, *alone)
            _run("setpriv", "--pdeathsig", "KILL", "true")
        finally:
            _run("ip", "netns", "del", name)
    except OSError as error:
        return f"{error.filename} cannot be run here"
    except subprocess.CalledProcessError as error:
        return f"{' '.join(error.cmd)}: {error.stderr.strip()}"
    return ""


@contextmanager
def separate_hosts(folder: Path, number: int) -> Iterator[Hosts]:
    """Makes so many hosts; nothing of them is left behind, however it ends.

    The next call clears away what is left of a process that was killed.
    """
    _remove_abandoned()
    process_id = os.getpid()
    bridge, subnet = f"{_PREFIX}{process_id}", f"10.{77 + process_id % 100}.{process_id // 100 % 256}"
    gateway, shared = f"{subnet}.1", folder / "shared"
    shared.mkdir(parents=True)
    with ExitStack() as undo:
        undo.callback(_remove_link, bridge)
        _run("ip", "link", "add", bridge, "type", "bridge")
        _run("ip", "address", "add", f"{gateway}/24", "dev", bridge)
        _run("ip", "link", "set", bridge, "up")
        hosts = []
        for index in range(number):
            host = Host(f"{bridge}-{index}", f"{subnet}.{11 + index}", folder / f"host-{index}", shared)
            undo.callback(_remove_namespace, host.name)
            undo.callback(host.halt)
            _connect(host, bridge, gateway)
            hosts.append(host)
        yield Hosts(gateway, shared, tuple(hosts))


def _connect(host: Host, bridge: str, gateway: str) -> None:
    name = host.name
    _run("ip", "netns", "add", name)
    _run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
    _run("ip", "link", "set", name, "master", bridge, "up")
    _run("ip", "-n", name, "address", "add", f"{host.address}/24", "dev", "eth0")
    for interface in ("lo", "eth0"):
        _run("ip", "-n", name, "link", "set", interface, "up")
    # Ray asks the kernel by which address it would leave.
    _run("ip", "-n", name, "route", "add", "default", "via", gateway)


def _remove_abandoned() -> None:
    links = re.findall(r"^\d+: ([^:@]+)", _run("ip", "-o", "link", "show", "type", "bridge"), re.MULTILINE)
    spaces = [line.split()[0] for line in _run("ip", "netns", "list").splitlines() if line]
    for name in spaces:
        if _is_abandoned(name):
            _remove_namespace(name)
    for name in links:
        if _is_abandoned(name):
            _remove_link(name)


def _is_abandoned(name: str) -> bool:
    found = _NAME.fullmatch(name)
    return found is not None and not psutil.pid_exists(int(found.group(1)))


def _remove_namespace(name: str) -> None:
    _end_processes(name)
    # The kernel would take the cable away too, some time after the namespace.
    _remove_link(name)
    with suppress(subprocess.CalledProcessError):
        _run("ip", "netns", "del", name)


def _remove_link(name: str) -> None:
    with suppress(subprocess.CalledProcessError):
        _run("ip", "link", "del", name)


def _end_processes(name: str) -> None:
    deadline = time.monotonic() + END_SECONDS
    while (found := _processes_in(name)) and time.monotonic() < deadline:
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(found, timeout=1)


def _processes_in(name: str) -> list[psutil.Process]:
    try:
        numbers = _run("ip", "netns", "pids", name).split()
    except subprocess.CalledProcessError:
        return []
    found = []
    for number in numbers:
        with suppress(psutil.NoSuchProcess):
            found.append(psutil.Process(int(number)))
    return found


def command_line(process: psutil.Process) -> str:
    """Of one that has ended it is empty."""
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout
