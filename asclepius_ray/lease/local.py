"""The lease on a folder: its file is looked at and written under a lock, so two runs never both hold it."""

import contextlib
import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import LeaseError
from asclepius_ray.fence import set_fence
from asclepius_ray.lease.holder import Holder, Timing, read_holder, this_process, write_holder
from asclepius_ray.lease.taken_over import end_taken_over
from asclepius_ray.lease.watch import HolderWatch

LOCK_NAME = ".lease-lock"

logger = logging.getLogger(__name__)


class LocalLease:
    """Holds a folder from `acquire_folder` to `release`."""

    def __init__(self, folder: Folder, holder: Holder, timing: Timing) -> None:
        self._folder = folder
        self._holder = holder
        self._timing = timing
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="lease")
        self._thread.start()
        set_fence(self.confirm)

    def confirm(self) -> None:
        """Ends the process if another run has taken the root over; an OSError where the file system fails."""
        # Asked anew each time: after a pause of the machine its clock may say that no time has passed.
        with _lock_of(self._folder):
            self._end_unless_held()

    def release(self, exit_code: int) -> None:
        """Gives the root back, with the result that followers end with."""
        self._ended.set()
        self._thread.join()
        set_fence(None)
        ended = replace(self._holder, exit_code=exit_code, heartbeat_unix=time.time())
        try:
            with _lock_of(self._folder):
                if _holds(self._folder, self._holder.token):
                    write_holder(self._folder, ended)
        except OSError as error:
            # A full disk, most likely what ended the run: our death gives the root back as well.
            logger.warning("the lease could not be given back: %s", error.strerror or error)

    def _beat(self) -> None:
        while not self._ended.wait(self._timing.heartbeat):
            try:
                with _lock_of(self._folder):
                    self._end_unless_held()
                    write_holder(self._folder, replace(self._holder, heartbeat_unix=time.time()))
            except OSError as error:
                # A full disk or a short outage: the next beat may go through, and if none does,
                # another run takes over and the check above notices it.
                logger.warning("the lease's heartbeat could not be written: %s", error.strerror or error)

    def _end_unless_held(self) -> None:
        if not _holds(self._folder, self._holder.token):
            end_taken_over(self._folder)


def acquire_folder(folder: Folder, purpose: str, timing: Timing, watch: HolderWatch) -> LocalLease:
    """Takes the root; a LeaseError names a live holder and how to go on."""
    found, is_working = watch.judge()
    if is_working:
        raise LeaseError(
            f"{folder.shown} is in use by {found}; wait for it to end or stop it, or choose another root"
        )
    with _lock_of(folder):
        now = read_holder(folder)
        if now is not None and (found is None or now.token != found.token):
            raise LeaseError(
                f"{folder.shown} has just been taken by {now}; wait for it, or choose another root"
            )
        if now is not None and now.exit_code is None and now != found:
            raise LeaseError(
                f"{folder.shown} is in use by {now}, silent until now; wait for it to end or stop it"
            )
        ours = this_process(purpose)
        write_holder(folder, ours)
    return LocalLease(folder, ours, timing)


def follow_in_folder(
    folder: Folder, purpose: str, say: Callable[[str], None], timing: Timing, watch: HolderWatch
) -> int | None:
    """The exit code of a live holder of the same purpose; None if there is none, or it died on the way."""
    holder = watch.look()
    if holder is None or holder.purpose != purpose or watch.is_over(holder):
        return None
    say(f"{folder.shown} is being worked on by {holder}, for the same job: following it")
    while holder is not None and holder.purpose == purpose:
        if holder.exit_code is not None:
            return holder.exit_code
        if watch.is_over(holder):
            return None
        time.sleep(timing.heartbeat / 5)
        holder = watch.look()
    return None


def _holds(folder: Folder, token: str) -> bool:
    try:
        holder = read_holder(folder)
    except LeaseError:
        # Files here are replaced whole: somebody else has written it.
        return False
    return holder is not None and holder.token == token


@contextlib.contextmanager
def _lock_of(folder: Folder) -> Iterator[None]:
    """Excludes every other process that shares the file system."""
    # A file opened for writing, not the folder: NFS passes such a lock on to the other hosts.
    descriptor = os.open(folder.local_path / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
