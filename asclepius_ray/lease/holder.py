"""Who holds, or held, a root: the file `lease` in it, and whether that process still lives."""

import json
import os
import socket
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from pydantic import TypeAdapter

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import LeaseError

LEASE_NAME = "lease"
_ENDED = (b"Z", b"X")
"""States of a process that only waits to be reaped, or is being reaped."""


@dataclass(frozen=True)
class Timing:
    """How often a holder shows that it lives, and how long its silence is borne. Seconds.

    `valid` is less than `stale`, so that a silent holder has stopped before another one begins, even where
    their clocks run a quarter apart.
    """

    heartbeat: float = 10.0
    valid: float = 45.0
    """After its last confirmed sign of life a holder commits nothing more, until it has confirmed it anew."""
    stale: float = 60.0
    look: float = 0.5
    """Between two looks of one that waits to know whether the root is free; less than a heartbeat."""
    cut_off: float = 600.0
    """A holder that has not reached the bucket for so long ends; every upload has given up by then."""


@dataclass(frozen=True)
class Holder:
    """Who holds, or held, the root."""

    token: str
    purpose: str
    """The job and the hash of its settings: who wants the same may follow instead of refusing."""
    host: str
    machine_id: str
    """The start of the kernel and the space of process ids: what makes `pid` mean something."""
    pid: int
    process_started_unix: float
    """For versions that know no `process_started_ticks`; it moves where the machine's clock is set."""
    heartbeat_unix: float
    exit_code: int | None = None
    """None while it lives; then what it ended with."""
    generation: int = 0
    """On a bucket its number in the queue, higher than that of every holder before; 0 on a file system."""
    process_started_ticks: int = 0
    """Since the start of the kernel, which no clock that is set changes; 0 from an earlier version."""

    def __str__(self) -> str:
        since = time.time() - self.heartbeat_unix
        return f"process {self.pid} on {self.host} (last heartbeat {max(0.0, since):.0f} s ago)"

    @property
    def is_of_this_machine(self) -> bool:
        return (self.host, self.machine_id) == (socket.gethostname(), _machine_id())

    def to_bytes(self) -> bytes:
        return (json.dumps(asdict(self)) + "\n").encode()


_HOLDERS = TypeAdapter(Holder)


def this_process(purpose: str) -> Holder:
    return Holder(
        token=uuid.uuid4().hex,
        purpose=purpose,
        host=socket.gethostname(),
        machine_id=_machine_id(),
        pid=os.getpid(),
        process_started_unix=psutil.Process().create_time(),
        heartbeat_unix=time.time(),
        process_started_ticks=_state_and_start(os.getpid())[1],
    )


def read_holder(folder: Folder) -> Holder | None:
    """Who stands in the lease, dead or alive; None if nobody does."""
    try:
        if not folder.exists(LEASE_NAME):
            return None
        content = folder.read_bytes(LEASE_NAME)
    except FileNotFoundError:
        return None
    try:
        return holder_of(content)
    except ValueError:
        raise LeaseError(
            f"{folder.shown}/{LEASE_NAME} is not readable; if no run is using this root, remove that file"
        ) from None


def holder_of(content: bytes) -> Holder:
    """What `to_bytes` has written, here or by a newer version, whose further fields are passed over.

    Raises a ValueError for anything else.
    """
    return _HOLDERS.validate_json(content)


def write_holder(folder: Folder, holder: Holder) -> None:
    folder.write_bytes(LEASE_NAME, holder.to_bytes())


def seems_live(holder: Holder, timing: Timing) -> bool:
    """Whether the holder still works, told at once: one on another machine by its last heartbeat alone."""
    if holder.exit_code is not None:
        return False
    return process_lives(holder) if holder.is_of_this_machine else is_fresh(holder, timing)


def is_fresh(holder: Holder, timing: Timing) -> bool:
    """Whether its last sign of life is of just now; a clock that is far ahead proves nothing."""
    return abs(time.time() - holder.heartbeat_unix) < timing.stale


def process_lives(holder: Holder) -> bool:
    """Whether a process of this machine is still there, and is that one."""
    try:
        state, started_ticks = _state_and_start(holder.pid)
        if holder.process_started_ticks:
            is_same = started_ticks == holder.process_started_ticks
        else:
            is_same = abs(psutil.Process(holder.pid).create_time() - holder.process_started_unix) < 1.0
    except (FileNotFoundError, ProcessLookupError, psutil.NoSuchProcess):
        return False
    return is_same and state not in _ENDED


def _state_and_start(pid: int) -> tuple[bytes, int]:
    """The state of a process, and the ticks from the start of the kernel to its own."""
    # The name of the program comes before, in brackets, and may hold anything.
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return fields[0], int(fields[19])


def _machine_id() -> str:
    """Two machines, or two containers, of the same host name differ in it."""
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot_id} {Path('/proc/self/ns/pid').readlink()}"
