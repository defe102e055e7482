"""One live writer a root: the file `lease` in the run's folder.

On a file system the check and the write happen under a lock, so that two runs never
both hold it. A bucket has no such lock through pyarrow: there the newer of two writers that start
within `SETTLE_SECONDS` of each other wins, and the other one notices and refuses.

A holder that is dead on this machine is taken over at once; one on another machine after
`STALE_SECONDS` without a heartbeat, once it has been watched for a heartbeat's time without a sign
(clocks of two machines may differ).
"""

import contextlib
import fcntl
import json
import logging
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NoReturn

import psutil

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import ConfigError, LeaseError

LEASE_NAME = "lease"
LOCK_NAME = ".lease-lock"
HEARTBEAT_SECONDS = 10.0
STALE_SECONDS = 60.0
SETTLE_SECONDS = 2.0

logger = logging.getLogger(__name__)


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

    def __str__(self) -> str:
        since = time.time() - self.heartbeat_unix
        return f"process {self.pid} on {self.host} (last heartbeat {max(0.0, since):.0f} s ago)"


class Lease:
    """Holds the root of a run from `acquire` to `release`."""

    def __init__(self, folder: Folder, holder: Holder) -> None:
        self._folder = folder
        self._holder = holder
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="lease")
        self._thread.start()

    def release(self, exit_code: int) -> None:
        """Gives the root back, with the result that followers end with."""
        self._ended.set()
        self._thread.join()
        ended = replace(self._holder, exit_code=exit_code, heartbeat_unix=time.time())
        try:
            with _lock_of(self._folder):
                if _holds(self._folder, self._holder.token):
                    _write(self._folder, ended)
        except OSError as error:
            # A full disk, most likely what ended the run: our death gives the root back as well.
            logger.warning("the lease could not be given back: %s", error.strerror or error)

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_SECONDS):
            try:
                with _lock_of(self._folder):
                    if not _holds(self._folder, self._holder.token):
                        self._give_up()
                    _write(self._folder, replace(self._holder, heartbeat_unix=time.time()))
            except OSError as error:
                # A full disk or a short outage: the next beat may go through, and if none does,
                # another run takes over and the check above notices it.
                logger.warning("the lease's heartbeat could not be written: %s", error.strerror or error)

    def _give_up(self) -> NoReturn:
        """Ends this process on the spot: to clean up now would be to remove what the new holder writes."""
        new_holder = read_holder(self._folder)
        sys.stderr.write(f"error: {self._folder.uri} was taken over by {new_holder}: this run ends\n")
        sys.stderr.flush()
        os._exit(LeaseError.exit_code)


def make_root(root: Folder) -> None:
    """Makes the run's folder and proves that it can be written; a ConfigError says why it cannot."""
    probe = ".writable"
    try:
        root.make()
        root.write_bytes(probe, b"")
        filesystem, path = root.filesystem()
        filesystem.delete_file(f"{path}/{probe}")
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(
            f"the root {root.uri} cannot be written ({reason}); choose another with --set root=FOLDER"
        ) from None


def acquire(folder: Folder, purpose: str) -> Lease:
    """Takes the root; a LeaseError names a live holder and how to go on."""
    ours = _this_process(purpose)
    found = read_holder(folder)
    if found is not None and is_live(found, folder):
        raise LeaseError(
            f"{folder.uri} is in use by {found}; wait for it to end or stop it, or choose another root"
        )
    with _lock_of(folder):
        now = read_holder(folder)
        if now is not None and (found is None or now.token != found.token):
            raise LeaseError(
                f"{folder.uri} has just been taken by {now}; wait for it, or choose another root"
            )
        _write(folder, ours)
    if not folder.is_local:
        time.sleep(SETTLE_SECONDS)
        if not _holds(folder, ours.token):
            raise LeaseError(f"{folder.uri} has just been taken by {read_holder(folder)}; wait for it to end")
    return Lease(folder, ours)


def follow(folder: Folder, purpose: str, say: Callable[[str], None]) -> int | None:
    """Waits for a live holder of the same purpose; its exit code, or None if there is none to follow.

    None also when the holder died on the way: the caller then takes the root over.
    """
    holder = read_holder(folder)
    if holder is None or holder.purpose != purpose or not is_live(holder, folder):
        return None
    say(f"{folder.uri} is being worked on by {holder}, for the same job: following it")
    token = holder.token
    while holder is not None and holder.token == token:
        if holder.exit_code is not None:
            return holder.exit_code
        if not is_live(holder, folder):
            return None
        time.sleep(HEARTBEAT_SECONDS / 5)
        holder = read_holder(folder)
    return None


def acquire_or_follow(folder: Folder, purpose: str, say: Callable[[str], None]) -> Lease | int:
    """The lease, or what a live holder of the same purpose has ended with.

    Of several that ask in the same moment one gets it, and the others follow that one; a LeaseError names a
    holder of another purpose.
    """
    while True:
        if (exit_code := follow(folder, purpose, say)) is not None:
            return exit_code
        try:
            return acquire(folder, purpose)
        except LeaseError:
            holder = read_holder(folder)
            if holder is None or holder.purpose != purpose:
                raise


def read_holder(folder: Folder) -> Holder | None:
    """Who stands in the lease, dead or alive; None if nobody does."""
    if not folder.exists(LEASE_NAME):
        return None
    try:
        return Holder(**json.loads(folder.read_bytes(LEASE_NAME)))
    except (ValueError, TypeError):
        raise LeaseError(
            f"{folder.uri}/{LEASE_NAME} is not readable; if no run is using this root, remove that file"
        ) from None


def is_live(holder: Holder, folder: Folder) -> bool:
    """Whether the holder still works; watches one on another machine for a heartbeat if in doubt."""
    if holder.exit_code is not None:
        return False
    if (holder.host, holder.machine_id) == (socket.gethostname(), _machine_id()):
        return _process_lives(holder)
    if time.time() - holder.heartbeat_unix < STALE_SECONDS:
        return True
    time.sleep(HEARTBEAT_SECONDS * 1.5)
    now = read_holder(folder)
    return now is not None and (now.token, now.heartbeat_unix) != (holder.token, holder.heartbeat_unix)


def _this_process(purpose: str) -> Holder:
    return Holder(
        token=uuid.uuid4().hex,
        purpose=purpose,
        host=socket.gethostname(),
        machine_id=_machine_id(),
        pid=os.getpid(),
        process_started_unix=psutil.Process().create_time(),
        heartbeat_unix=time.time(),
    )


def _process_lives(holder: Holder) -> bool:
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


def _holds(folder: Folder, token: str) -> bool:
    holder = read_holder(folder)
    return holder is not None and holder.token == token


def _write(folder: Folder, holder: Holder) -> None:
    folder.write_bytes(LEASE_NAME, (json.dumps(asdict(holder)) + "\n").encode())


@contextlib.contextmanager
def _lock_of(folder: Folder) -> Iterator[None]:
    """Excludes every other process that shares the file system; nothing on a bucket."""
    if not folder.is_local:
        yield
        return
    # A file opened for writing, not the folder: NFS passes such a lock on to the other hosts.
    descriptor = os.open(folder.local_path / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
