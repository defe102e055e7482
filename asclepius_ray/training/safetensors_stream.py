"""One safetensors file, written tensor by tensor while the later ones are still on their way.

safetensors' own writer wants all tensors of a file at once, and a file on a local disk; a file that goes to a
bucket would lie there first.
"""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from queue import SimpleQueue

import torch

from asclepius_ray.artifacts import Folder

_DTYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_HEADER_ALIGNMENT = 8


@dataclass(frozen=True)
class SavedTensor:
    """A tensor as a file holds it."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


class TensorFile:
    """A file that a thread writes, and takes the sha256 of, while tensors are put into it.

    `put` never waits: what is not written yet stays in memory, at most the content of the file.
    """

    def __init__(self, folder: Folder, name: str, tensors: Sequence[SavedTensor]) -> None:
        """Announces what will be put, in this order."""
        self._tensors = tensors
        self._waiting: SimpleQueue[torch.Tensor | None] = SimpleQueue()
        pool = ThreadPoolExecutor(1, thread_name_prefix="export")
        self._written: Future[str] = pool.submit(self._write, folder, name)
        pool.shutdown(wait=False)

    def put(self, tensor: torch.Tensor) -> None:
        """Adds the next tensor, in the host's memory; nobody may change it any more."""
        self._waiting.put(tensor)

    def close(self) -> str:
        """Waits until all is written; the file's sha256, or the error that the writing ended with."""
        return self._written.result()

    def abandon(self) -> None:
        """Lets the thread end although tensors are missing; without effect on a whole file."""
        self._waiting.put(None)

    def _write(self, folder: Folder, name: str) -> str:
        digest = hashlib.sha256()
        with folder.open_output(name) as stream:
            header = _header(self._tensors)
            stream.write(header)
            digest.update(header)
            for expected in self._tensors:
                tensor = self._waiting.get()
                if tensor is None:
                    break
                assert (tensor.dtype, tuple(tensor.shape)) == (expected.dtype, expected.shape), expected
                content = tensor.contiguous().flatten().view(torch.uint8).numpy().data
                stream.write(content)
                digest.update(content)
        return digest.hexdigest()


def _header(tensors: Sequence[SavedTensor]) -> bytes:
    """The format's beginning: its own length, then names, types, shapes and places as JSON."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    start = 0
    for tensor in tensors:
        end = start + tensor.num_bytes
        entries[tensor.name] = {
            "dtype": _DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _HEADER_ALIGNMENT)
    return len(text).to_bytes(8, "little") + text
