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
    """Between two looks of a claimant at those before it."""
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
    heartbeat_unix: float
    exit_code: int | None = None
    """None while it lives; then what it ended with."""
    generation: int = 0
    """On a bucket its number in the queue, higher than that of every holder before; 0 on a file system."""

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


def is_live(holder: Holder, folder: Folder, timing: Timing | None = None) -> bool:
    """Whether the holder still works; watches one on another machine for a heartbeat if in doubt."""
    timing = timing or Timing()
    if seems_live(holder, timing):
        return True
    if holder.exit_code is not None or holder.is_of_this_machine:
        return False
    time.sleep(timing.heartbeat * 1.5)
    now = read_holder(folder)
    return now is not None and (now.token, now.heartbeat_unix) != (holder.token, holder.heartbeat_unix)


def seems_live(holder: Holder, timing: Timing) -> bool:
    """The same at once: one on another machine by its last heartbeat alone."""
    if holder.exit_code is not None:
        return False
    return process_lives(holder) if holder.is_of_this_machine else is_fresh(holder, timing)


def is_fresh(holder: Holder, timing: Timing) -> bool:
    """Whether its last sign of life is of just now; a clock that is far ahead proves nothing."""
    return abs(time.time() - holder.heartbeat_unix) < timing.stale


def process_lives(holder: Holder) -> bool:
    """Whether a process of this machine is still there, and is that one."""
    try:
        process = psutil.Process(holder.pid)
        same = abs(process.create_time() - holder.process_started_unix) < 1.0
        return bool(same and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _machine_id() -> str:
    """Two machines, or two containers, of the same host name differ in it."""
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot_id} {Path('/proc/self/ns/pid').readlink()}"
