"""Files of one folder → another, here or in a bucket: several at a time, hashed on the way."""

import hashlib
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from asclepius_ray.artifacts import Folder

BLOCK_BYTES = 4 << 20
THREADS = 8
ATTEMPTS = 8
"""With the waits between them, a bucket may be away for four minutes."""
WAIT_SECONDS = 2.0
"""Before the second attempt; twice as long before each further one."""
_FOR_GOOD = ("ACCESS_DENIED", "NO_SUCH_BUCKET", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH")
"""Words of a bucket that would be the same the next time."""
Value = TypeVar("Value")


def copy_file(source: Folder, target: Folder, name: str) -> str:
    """Copies one file, a block in memory at a time; returns its sha256."""
    digest = hashlib.sha256()
    with source.open_input(name) as reader, target.open_output(name) as writer:
        while block := reader.read(BLOCK_BYTES):
            digest.update(block)
            writer.write(block)
    return digest.hexdigest()


def copy_files(source: Folder, target: Folder, names: Iterable[str]) -> dict[str, str]:
    """Copies the files; returns their sha256."""
    wanted = list(names)
    with ThreadPoolExecutor(THREADS, thread_name_prefix="copy") as pool:
        copied = pool.map(lambda name: copy_file(source, target, name), wanted)
        return dict(zip(wanted, copied, strict=True))


def tried_again(action: Callable[[], Value], place: Folder) -> Value:
    """What `action` returns; on a bucket it is tried some times before its OSError counts."""
    for attempt in range(1, 1 if place.is_local else ATTEMPTS):
        try:
            return action()
        except FileNotFoundError:
            raise
        except OSError as error:
            if any(reason in str(error) for reason in _FOR_GOOD):
                raise
            time.sleep(WAIT_SECONDS * 2 ** (attempt - 1))
    return action()
