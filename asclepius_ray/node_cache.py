"""One copy of a bucket's folder on each node, for all of its processes.

A copy lies under the identity of what it holds, closed to other users, and gets its name once it is whole:
what `kill -9` has cut short is fetched anew. It stays after a killed process, so that the next start need not
wait for it, until `forget_on_node`.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import ArtifactError

FETCHING_THREADS = 8
BLOCK_BYTES = 1 << 22


def fetch_to_node(folder: Folder, identity: str, hashes: Mapping[str, str]) -> Path:
    """A local path with the files of `hashes` (name → sha256) in it; a local folder is its own.

    Several processes of a node may ask at once: one copies, the others wait for it.
    """
    if folder.is_local:
        return folder.local_path
    target = cache_folder() / identity
    target.parent.mkdir(parents=True, exist_ok=True)
    with _lock(target.with_name(f".{identity}.lock")):
        if not target.is_dir():
            _fetch(folder, hashes, target)
    return target


def forget_on_node(folder: Folder, identity: str) -> None:
    """Removes this node's copy. Files that a process has mapped stay readable for it."""
    if not folder.is_local:
        shutil.rmtree(cache_folder() / identity, ignore_errors=True)


def cache_folder() -> Path:
    """Where the copies of this node lie; XDG_CACHE_HOME moves it to another disk."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "asclepius-ray"


def _fetch(folder: Folder, hashes: Mapping[str, str], target: Path) -> None:
    partial = target.with_name(f".{target.name}.partial")
    # What is in it is of a process that died: nobody else writes while we hold the lock.
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700)
    try:
        with ThreadPoolExecutor(FETCHING_THREADS, thread_name_prefix="fetch") as pool:
            files = [pool.submit(_fetch_file, folder, name, sha, partial) for name, sha in hashes.items()]
        for file in files:
            file.result()
    except OSError as error:
        raise ArtifactError(
            f"{folder.uri} cannot be copied to {target.parent} on this node ({error.strerror or error}); if "
            "it is for want of space, remove what is old there, or set XDG_CACHE_HOME to a larger disk"
        ) from error
    partial.rename(target)


def _fetch_file(folder: Folder, name: str, sha256: str, target: Path) -> None:
    file = target / name
    file.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with folder.open_input(name) as reader, file.open("wb") as writer:
        while block := reader.read(BLOCK_BYTES):
            digest.update(block)
            writer.write(block)
    if digest.hexdigest() != sha256:
        raise ArtifactError(
            f"{folder.uri}/{name} is not what its manifest says; restore it, or make the artefact anew"
        )


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Held by one process of this node at a time; the kernel takes it back from one that dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
