"""A private local folder for what is on its way to storage; those of dead processes are removed."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "asclepius-checkpoint-"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new folder of mode 0700, gone with the context; the process's death gives up its lock."""
    remove_abandoned()
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        # Another process may have taken it for an abandoned one before it was locked.
        if (descriptor := _lock(folder, fcntl.LOCK_EX)) is not None:
            break
    try:
        yield folder
    finally:
        # A thread that is still at work may remove parts of it meanwhile.
        with suppress(FileNotFoundError):
            shutil.rmtree(folder)
        os.close(descriptor)


def remove_abandoned() -> None:
    """Removes the folders of processes that were killed: they may hold the state of a whole model."""
    for folder in Path(tempfile.gettempdir()).glob(PREFIX + "*"):
        if (descriptor := _lock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)) is not None:
            shutil.rmtree(folder)
            os.close(descriptor)


def _lock(folder: Path, operation: int) -> int | None:
    """The descriptor that holds the folder's lock; None if another has it, or the folder is gone."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except (FileNotFoundError, PermissionError):
        return None
    try:
        fcntl.flock(descriptor, operation)
    except BlockingIOError:
        os.close(descriptor)
        return None
    if not folder.exists():
        os.close(descriptor)
        return None
    return descriptor
