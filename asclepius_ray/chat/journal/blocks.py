"""Reads records of segments through a cache of blocks: a replay asks in about the order of buying."""

import threading
from collections import OrderedDict

from asclepius_ray.artifacts import Folder

BLOCK_BYTES = 1 << 20
CACHED_BLOCKS = 64


class BlockReader:
    """Keeps the last blocks that were read, 64 MiB at most; may be called from several threads."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._blocks: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, name: str, offset: int, length: int) -> bytes:
        """The bytes of a file; fewer where it is shorter. An OSError where it is gone."""
        first, last = offset // BLOCK_BYTES, (offset + length - 1) // BLOCK_BYTES
        content = b"".join(self._block(name, number) for number in range(first, last + 1))
        start = offset - first * BLOCK_BYTES
        return content[start : start + length]

    def forget(self, name: str) -> None:
        with self._lock:
            for key in [key for key in self._blocks if key[0] == name]:
                del self._blocks[key]

    def _block(self, name: str, number: int) -> bytes:
        key = (name, number)
        with self._lock:
            if key in self._blocks:
                self._blocks.move_to_end(key)
                return self._blocks[key]
        block = self._folder.read_range(name, number * BLOCK_BYTES, BLOCK_BYTES)
        with self._lock:
            self._blocks[key] = block
            while len(self._blocks) > CACHED_BLOCKS:
                self._blocks.popitem(last=False)
        return block
