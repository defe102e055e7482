"""Files of one folder → another, here or in a bucket: several at a time, hashed on the way."""

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from asclepius_ray.artifacts import Folder

BLOCK_BYTES = 4 << 20
THREADS = 8


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
