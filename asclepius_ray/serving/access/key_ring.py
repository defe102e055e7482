"""The keys that a replica knows: the operator's own, and those of the file, read anew when it changed."""

import hmac
import logging
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime

import pyarrow

from asclepius_ray.errors import AsclepiusError
from asclepius_ray.serving.access.account import Caller
from asclepius_ray.serving.access.key_file import KeyFile
from asclepius_ray.serving.access.keys import SCOPES, KeyRecord, hash_key, parse_book

LOCAL_POLL_SECONDS, BUCKET_POLL_SECONDS = 0.5, 1.5
"""A key that is revoked is refused at most so long, and the time of one reading, later. A bucket is asked for
the whole file each time, and each time is paid for."""
OPERATOR = Caller("operator", frozenset(SCOPES))
"""The holder of the environment's key: may do everything, without limits."""

logger = logging.getLogger(__name__)


class KeysUnreadable(Exception):
    """The file has never been read well, or nobody looks at it any more: whether a key is a good one, or was
    revoked meanwhile, is not known."""


class KeyRing:
    """Finds who holds a key. A file that vanished or is damaged changes nothing: what was last read well
    holds on, so that nobody is locked out and nobody who was revoked comes back.
    """

    def __init__(
        self,
        operator_sha256: str = "",
        file: KeyFile | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._operator_sha256 = operator_sha256
        self._file = file
        self._clock = clock
        self._records: dict[str, KeyRecord] | None = None
        """By their hash; None until the file was read well once."""
        self._content: bytes | None = None
        self._signature: object = None
        self._trouble = ""
        self._ended = threading.Event()
        self._watcher: threading.Thread | None = None
        self.refresh()

    @property
    def trouble(self) -> str:
        """One of "missing", "damaged" and "unreachable" while the file is so; empty while all is well."""
        return self._trouble

    @property
    def is_unreadable(self) -> bool:
        """Whether the keys of the file cannot be checked at all."""
        return (self._records is None and bool(self._trouble)) or self._is_unwatched

    @property
    def _is_unwatched(self) -> bool:
        """Whether the thread that looks for changes has ended by an error that nobody foresaw."""
        return self._watcher is not None and not self._watcher.is_alive() and not self._ended.is_set()

    @property
    def has_usable_key(self) -> bool:
        """Whether the file holds a key that would be taken now."""
        records = (self._records or {}).values()
        return any(record.state(self._clock()) == "usable" for record in records)

    def find(self, api_key: str) -> Caller | None:
        """Who holds this key now; None for a wrong, revoked or expired one alike. KeysUnreadable where
        the file may hold it and cannot be checked.

        Only digests are compared. That a dictionary looks them up tells a prober at most how much of
        the SHA-256 of its own guess is that of a key, which brings it no nearer to 256 random bits.
        """
        if not api_key:
            return None
        digest = hash_key(api_key)
        if hmac.compare_digest(digest, self._operator_sha256):
            return OPERATOR
        return self._find_in_file(digest)

    def refresh(self) -> None:
        """Reads the file if it changed since."""
        if self._file is None:
            return
        try:
            signature = _signature(self._file)
            if signature is not None and signature == self._signature:
                return
            content = self._file.read()
            self._signature = signature
            self._take(content)
        except (OSError, ValueError, pyarrow.ArrowException, AsclepiusError) as error:
            # A file system of a bucket has errors of its own beside the system's.
            self._signature = None
            self._tell("unreachable", type(error).__name__)

    def watch(self) -> None:
        """Begins to look for changes, in a thread of its own; once."""
        if self._watcher is None and self._file is not None:
            self._watcher = threading.Thread(target=self._watch, daemon=True, name="keys")
            self._watcher.start()

    def close(self) -> None:
        self._ended.set()

    def _find_in_file(self, digest: str) -> Caller | None:
        if self.is_unreadable:
            raise KeysUnreadable(self._trouble or "unwatched")
        record = (self._records or {}).get(digest)
        if record is None or not hmac.compare_digest(record.sha256, digest):
            return None
        if record.state(self._clock()) != "usable":
            return None
        return Caller(record.id, record.scopes, record.limits)

    def _take(self, content: bytes | None) -> None:
        if content is None:
            if self._records is not None:
                self._tell("missing", "it is not there any more")
            return
        if content == self._content:
            self._tell("", "")
            return
        try:
            book = parse_book(content)
        except ValueError as error:
            self._tell("damaged", str(error))
            return
        self._records = {record.sha256: record for record in book.keys}
        self._content = content
        self._tell("", "")

    def _tell(self, trouble: str, reason: str) -> None:
        assert self._file is not None
        if trouble and trouble != self._trouble:
            logger.error(
                "the file of keys %s is %s (%s): the keys that were last read hold on",
                self._file.shown,
                trouble,
                reason,
            )
        elif self._trouble and not trouble:
            logger.warning("the file of keys %s can be read again", self._file.shown)
        self._trouble = trouble

    def _watch(self) -> None:
        is_local = self._file is not None and self._file.folder.is_local
        while not self._ended.wait(LOCAL_POLL_SECONDS if is_local else BUCKET_POLL_SECONDS):
            self.refresh()


def _signature(file: KeyFile) -> object:
    """What changes whenever a local file does; None where only its content tells, as in a bucket.

    A bucket's times have whole seconds, in which a file may change twice. The file is opened for it: NFS
    answers a mere stat from what it knew seconds ago, and asks its server when a file is opened.
    """
    if not file.folder.is_local:
        return None
    try:
        descriptor = os.open(file.folder.local_path / file.name, os.O_RDONLY)
    except FileNotFoundError:
        return "missing"
    try:
        found = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    return (found.st_ino, found.st_mtime_ns, found.st_size)
