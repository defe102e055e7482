"""One copy of a bucket's folder on each node, for all of its processes.

The copy lies under the identity of what it holds, so another content has another place. A file gets its
name there once it is whole and has the hash that it must have: whoever finds the name can read it, and a
copy that was cut short by `kill -9` goes on with the files that are not there yet. It stays until
`forget_on_node`, so that the next start need not wait for it, or until something else is fetched while no
process has asked for it for 30 days: else each new base model would stay for good.
"""

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import ArtifactError
from asclepius_ray.transfers import THREADS, copy_file

UNKNOWN = ""
"""The hash of a file of which none is known: it is taken as it comes."""
UNUSED_SECONDS = 30 * 24 * 3600


def fetch_to_node(folder: Folder, identity: str, hashes: Mapping[str, str]) -> Path:
    """A local path with the files of `hashes` (name → sha256) in it; a local folder is its own.

    Several processes of a node may ask at once: one copies, the others wait for it.
    """
    if folder.is_local:
        return folder.local_path
    target = cache_folder() / identity
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = target.with_name(f".{identity}.lock")
    with _lock(_cache_lock()):
        # Its time is that of the last use. What is marked before this lock goes is not dropped after it.
        lock.touch(mode=0o600)
        missing = _missing(target, hashes)
    if missing:
        target.mkdir(mode=0o700, exist_ok=True)
        with _lock(lock):
            _copy_missing(folder, target, hashes)
        _drop_unused()
    return target


def forget_on_node(folder: Folder, identity: str) -> None:
    """Removes this node's copy. Files that a process has mapped stay readable for it."""
    if not folder.is_local:
        shutil.rmtree(cache_folder() / identity, ignore_errors=True)


def cache_folder() -> Path:
    """Where the copies of this node lie; XDG_CACHE_HOME moves it to another disk."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "asclepius-ray"


def _cache_lock() -> Path:
    """Held for moments only: while a copy is marked as used, and while old ones are dropped."""
    return cache_folder() / "lock"


def _drop_unused() -> None:
    """Removes every copy that no process of this node has asked for in UNUSED_SECONDS."""
    with _lock(_cache_lock()):
        for lock in cache_folder().glob(".*.lock"):
            if time.time() - lock.stat().st_mtime < UNUSED_SECONDS:
                continue
            name = lock.name.removesuffix(".lock").removeprefix(".")
            for copy in (lock.with_name(name), lock.with_name(f".{name}.partial")):
                shutil.rmtree(copy, ignore_errors=True)
            lock.unlink()


def _missing(target: Path, hashes: Mapping[str, str]) -> list[str]:
    return [name for name in hashes if not (target / name).exists()]


def _copy_missing(folder: Folder, target: Path, hashes: Mapping[str, str]) -> None:
    partial = target.with_name(f".{target.name}.partial")
    # What is in it is of a process that died: nobody else writes while we hold the lock.
    shutil.rmtree(partial, ignore_errors=True)

    def copy(name: str) -> None:
        found = copy_file(folder, Folder(str(partial)), name)
        if hashes[name] not in (UNKNOWN, found):
            raise ArtifactError(
                f"{folder.uri}/{name} is not what its manifest says; restore it, or make the artefact anew"
            )
        _put_in_place(partial / name, target / name)

    try:
        with ThreadPoolExecutor(THREADS, thread_name_prefix="fetch") as pool:
            for _ in pool.map(copy, _missing(target, hashes)):
                pass
    except OSError as error:
        raise ArtifactError(
            f"{folder.uri} cannot be copied to {target.parent} on this node ({error.strerror or error}); if "
            "it is for want of space, remove what is old there, or set XDG_CACHE_HOME to a larger disk"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _put_in_place(partial: Path, target: Path) -> None:
    """Gives the file its name, once its bytes would outlive a loss of power."""
    descriptor = os.open(partial, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial.rename(target)


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Held by one process of this node at a time; the kernel takes it back from one that dies."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
