"""The file of keys, in a folder or a bucket: read whole, and changed by one writer at a time.

A local file is changed under a lock of the system, which ends with its process. A bucket has no such
lock through pyarrow: there every writer first leaves a mark and then looks for others', and goes back
if it finds any. Of two writers, whoever looks later sees the other's mark (listings of S3 and GCS are
strongly consistent), so that both never go on.
"""

import contextlib
import fcntl
import os
import random
import time
import uuid
from collections.abc import Callable, Iterator
from functools import cached_property

import pyarrow.fs

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import ConfigError
from asclepius_ray.serving.access.keys import KeyBook, dump_book, parse_book

KEYS_NAME = "keys.json"
LONGEST_WRITE_SECONDS = 30.0
"""A mark in a bucket that is older was left by a writer that died."""
PATIENCE_SECONDS = 60.0


class KeyFile:
    """One file of keys; `place` is the file itself, or the folder or run root that holds `keys.json`."""

    def __init__(self, place: str) -> None:
        base, mark, query = (place, "", "") if Folder(place).is_local else place.partition("?")
        base = base.rstrip("/")
        if not base.endswith(".json"):
            base = f"{base}/{KEYS_NAME}"
        parent, slash, self.name = base.rpartition("/")
        self.folder = Folder((parent or slash or ".") + mark + query).absolute()

    @property
    def shown(self) -> str:
        """The file's address as a log may hold it: a query may carry more than an address."""
        return f"{self.folder.shown}/{self.name}"

    @cached_property
    def _opened(self) -> tuple[pyarrow.fs.FileSystem, str]:
        return self.folder.filesystem()

    def read(self) -> bytes | None:
        """The file's content, None where there is none; an OSError where nobody knows."""
        filesystem, path = self._opened
        try:
            with filesystem.open_input_stream(f"{path}/{self.name}") as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None

    def load(self) -> KeyBook:
        """The keys; none where there is no file. A ConfigError where it is damaged."""
        content = self.read()
        if content is None:
            return KeyBook()
        try:
            return parse_book(content)
        except ValueError as error:
            raise ConfigError(
                f"{self.shown} cannot be read as a file of keys: {error}; put a copy of it back, or remove "
                "it and make the keys anew"
            ) from None

    def change(self, how: Callable[[KeyBook], KeyBook]) -> KeyBook:
        """Replaces the file by what `how` makes of it; no other writer comes between reading and writing."""
        self.folder.make()
        with self._lock():
            changed = how(self.load())
            self.folder.write_bytes(self.name, dump_book(changed))
        return changed

    def _lock(self) -> contextlib.AbstractContextManager[None]:
        return self._local_lock() if self.folder.is_local else self._bucket_lock()

    @contextlib.contextmanager
    def _local_lock(self) -> Iterator[None]:
        # A file beside it, for the file itself is replaced; opened for writing, as NFS wants it.
        lock = self.folder.local_path / f".{self.name}.lock"
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _bucket_lock(self) -> Iterator[None]:
        marks = self.folder.child(f".{self.name}.writers")
        ours = uuid.uuid4().hex
        give_up = time.monotonic() + PATIENCE_SECONDS
        while True:
            marks.write_bytes(ours, b"")
            if not _others(marks, ours):
                break
            marks.delete(ours)
            if time.monotonic() > give_up:
                raise ConfigError(f"{self.shown} is being changed by others without end; try again later")
            time.sleep(random.uniform(0.05, 0.5))
        try:
            yield
        finally:
            marks.delete(ours)


def _others(marks: Folder, ours: str) -> list[str]:
    """The marks of other writers that live; all ages are by the bucket's own clock."""
    filesystem, path = marks.filesystem()
    found = filesystem.get_file_info(pyarrow.fs.FileSelector(path, allow_not_found=True))
    ages = {info.base_name: info.mtime for info in found if info.type == pyarrow.fs.FileType.File}
    newest = ages[ours]
    return [
        name
        for name, made in ages.items()
        if name != ours and (newest - made).total_seconds() < LONGEST_WRITE_SECONDS
    ]
