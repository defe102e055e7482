"""One live writer a root. `acquire` takes it, `join` takes it or follows a twin.

On a file system the check and the write happen under a lock (`local.py`). In a bucket, where nothing can be
locked, those who want the root stand in a queue (`bakery.py`, `bucket.py`). Both leave the file `lease` in
the root: who holds it, and at the end the exit code.

A holder that is dead on this machine is taken over at once; one on another machine after 60 s without a sign
of life, by the clock of the one that looks on: what another's clock shows can only make it wait. On both, a
holder looks whether the root is still its own before it makes an artefact whole or removes one, and ends with
exit code 4 if it was taken over.

What is guaranteed in a bucket, given that a request ends or fails within seconds:

(a) All see the bucket: at most one holds the root, whoever starts when, and whatever their clocks show.
(b) The holder alone is cut off: 45 s after its last sign of life it makes no artefact whole and removes none
    any more, so that it has stopped when another takes over, 60 s after it. When it sees the bucket again it
    ends with exit code 4; it ends too after ten minutes without the bucket.
(c) The bucket is away for all: nobody can take over, and the time counts for nobody. The holder waits with
    what it would make whole, shows its sign of life once the bucket is back, and goes on.
(d) The process is stopped (SIGSTOP, a paused machine): as it runs again it first looks, and ends with code 4
    if it was taken over. Without a clock that ran on (a paused machine's may stand still) it does so before
    its next artefact and within ten seconds.

What remains: a request that had left before the process stopped may arrive later, on a folder the one write
or removal for which it had just looked; and what its workers on other machines write until Ray ends them.
Segments of the journal and files of checkpoints have names that no other writer can choose, so they harm none
of another's; a table or a shard of a model of the same name could be written over, and its hash in the
manifest would then not fit it. Where many files are removed from a bucket it is asked every two seconds
whether the root is still this run's: one that is stopped between an answer and the next may remove, as it
runs again, what another has made since under the names that it had listed.
"""

from collections.abc import Callable

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import LeaseError
from asclepius_ray.lease.bucket import (
    BucketLease,
    Onlooker,
    acquire_in_bucket,
    follow_in_bucket,
    forget_the_dead,
)
from asclepius_ray.lease.holder import LEASE_NAME, Holder, Timing, read_holder, seems_live
from asclepius_ray.lease.local import LocalLease, acquire_folder, follow_in_folder
from asclepius_ray.lease.roots import make_root
from asclepius_ray.lease.watch import HolderWatch, is_live

__all__ = [
    "LEASE_NAME",
    "Holder",
    "Lease",
    "Timing",
    "acquire",
    "forget_the_dead",
    "is_live",
    "join",
    "make_root",
    "read_holder",
    "seems_live",
]

Lease = LocalLease | BucketLease


def acquire(folder: Folder, purpose: str, timing: Timing | None = None) -> Lease:
    """Takes the root; a LeaseError names a live holder and how to go on."""
    timing = timing or Timing()
    if folder.is_local:
        return acquire_folder(folder, purpose, timing, HolderWatch(folder, timing))
    return acquire_in_bucket(folder, purpose, timing, Onlooker(folder, timing))


def join(
    folder: Folder, purpose: str, say: Callable[[str], None], timing: Timing | None = None
) -> Lease | int:
    """The root, or the exit code of a twin: a live holder of the same purpose, which is followed to its end.

    Of several that follow one that dies, one takes the root and the others follow that one. A LeaseError
    names a live holder of another purpose.
    """
    timing = timing or Timing()
    watch = HolderWatch(folder, timing) if folder.is_local else Onlooker(folder, timing)
    while True:
        try:
            if isinstance(watch, HolderWatch):
                code = follow_in_folder(folder, purpose, say, timing, watch)
                return acquire_folder(folder, purpose, timing, watch) if code is None else code
            code = follow_in_bucket(folder, purpose, say, timing, watch)
            return acquire_in_bucket(folder, purpose, timing, watch) if code is None else code
        except LeaseError:
            holder = read_holder(folder)
            if holder is None or holder.purpose != purpose:
                raise
