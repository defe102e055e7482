"""Local files → storage, with the sha256 of each: by several threads, tried again where a network fails.

In a bucket they are copied; a local folder holds them already, and they get their final names.
"""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import TrainingError
from asclepius_ray.transfers import tried_again

PARTIAL_SUFFIX = ".partial"
"""What is being written; the final name says that a file is whole."""
UPLOADS = 8
_BLOCK = 8 << 20


@contextmanager
def storage_errors_named(training: Folder) -> Iterator[None]:
    """Turns a failure of the storage into a TrainingError that says where and what to do."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())[:300]
        raise TrainingError(
            f"a checkpoint could not be written to {training.uri}: {reason}; make room there, or mend access "
            "to it, and run the same command again: it goes on from the newest whole checkpoint"
        ) from error


def store_files(source: Path, names: list[str], target: Folder) -> list[tuple[int, str]]:
    """Brings `source/NAME.partial` to `target/NAME`; returns bytes and sha256 of each.

    `source` is the folder of `target` itself where that is local. An OSError says what failed for good.
    """
    with ThreadPoolExecutor(UPLOADS) as pool:
        return list(pool.map(lambda name: _store(source / (name + PARTIAL_SUFFIX), name, target), names))


def _store(file: Path, name: str, target: Folder) -> tuple[int, str]:
    if target.is_local:
        return _settle(file, target.local_path / name)
    # Half of it may be there: the next attempt writes over it.
    return tried_again(lambda: _upload(file, name, target), target)


def _settle(file: Path, final: Path) -> tuple[int, str]:
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
        os.fsync(stream.fileno())
    size = file.stat().st_size
    file.replace(final)
    return size, digest.hexdigest()


def _upload(file: Path, name: str, target: Folder) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    with file.open("rb") as stream, target.open_output(name) as sink:
        while block := stream.read(_BLOCK):
            digest.update(block)
            sink.write(block)
            size += len(block)
    return size, digest.hexdigest()
