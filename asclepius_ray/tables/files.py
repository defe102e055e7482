"""The files that a path of the run file stands for, here or in a bucket: finding, opening and hashing them.

`setting` is the path's name in the run file, for messages.
"""

import codecs
import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import pyarrow.fs

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import InputError

_FORMATS = {".csv": "csv", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
_KNOWN = (
    "CSV (.csv), a JSON array (.json), JSON lines (.jsonl, .ndjson), each also as .gz, or Parquet (.parquet)"
)
BLOCK_BYTES = 1 << 20

# Stands for bytes that are not UTF-8: a code point that Unicode keeps out of every text.
BROKEN_TEXT = "\ufdd0"
codecs.register_error("asclepius_mark", lambda error: (BROKEN_TEXT, getattr(error, "end", 0)))


@dataclass(frozen=True)
class Table:
    """One file; `name` is what a message calls it."""

    filesystem: pyarrow.fs.FileSystem
    path: str
    name: str
    format: str

    def open_text(self) -> io.TextIOWrapper:
        """A stream of its text, unpacked where it is compressed."""
        raw = self.filesystem.open_input_stream(self.path, buffer_size=BLOCK_BYTES)
        return io.TextIOWrapper(raw, encoding="utf-8-sig", errors="asclepius_mark", newline="")

    def sha256(self) -> str:
        """Of its bytes as they lie there; an InputError if they cannot be read."""
        digest = hashlib.sha256()
        try:
            with self.filesystem.open_input_stream(self.path, compression=None) as stream:
                while block := stream.read_buffer(4 * BLOCK_BYTES):
                    digest.update(block)
        except OSError as error:
            raise InputError(f"{self.name} cannot be read: {error}") from error
        return digest.hexdigest()


def find_tables(path: str, setting: str) -> list[Table]:
    """The files that `path` stands for, sorted by name; an InputError if there are none."""
    if not path.strip():
        raise InputError(
            f"{setting} is not set: name a file, a folder or a URI in the run file, "
            f"or with --set {setting}=..."
        )
    shown = re.sub(r"://[^/@]*@", "://***@", path)
    filesystem, root = Folder(path).filesystem()
    root = root.rstrip("/")
    try:
        info = filesystem.get_file_info(root)
        if info.type == pyarrow.fs.FileType.NotFound:
            raise InputError(f"{setting}: {shown} does not exist; correct the path")
        if info.type == pyarrow.fs.FileType.Directory:
            return _tables_below(filesystem, root, shown, setting)
    except OSError as error:
        raise InputError(f"{setting}: {shown} cannot be read: {error}") from error
    kind = _format_of(root)
    if not kind:
        raise InputError(f"{setting}: {shown} has an unknown ending; known are {_KNOWN}")
    _refuse_empty(info, shown, setting)
    return [Table(filesystem, root, shown, kind)]


def _tables_below(filesystem: pyarrow.fs.FileSystem, root: str, shown: str, setting: str) -> list[Table]:
    found = []
    for info in filesystem.get_file_info(pyarrow.fs.FileSelector(root, recursive=True)):
        name = info.path.removeprefix(f"{root}/")
        hidden = any(part.startswith((".", "_")) for part in name.split("/"))
        if info.type == pyarrow.fs.FileType.File and _format_of(name) and not hidden:
            _refuse_empty(info, f"{name} in {shown}", setting)
            found.append(Table(filesystem, info.path, f"{name} in {shown}", _format_of(name)))
    if not found:
        raise InputError(f"{setting}: the folder {shown} holds no file of a known kind; known are {_KNOWN}")
    return sorted(found, key=lambda table: table.path)


def _format_of(path: str) -> str:
    name = PurePosixPath(path.lower())
    packed = name.suffix == ".gz"
    kind = _FORMATS.get(PurePosixPath(name.stem).suffix if packed else name.suffix, "")
    return "" if packed and kind == "parquet" else kind


def _refuse_empty(info: pyarrow.fs.FileInfo, shown: str, setting: str) -> None:
    if info.size == 0:
        raise InputError(f"{setting}: {shown} is empty (0 bytes); write it again or take it away")


def content_sha256(tables: Sequence[Table]) -> str:
    """A sha256 over the bytes of the files in their order; names and places do not count."""
    whole = hashlib.sha256()
    for table in tables:
        whole.update(bytes.fromhex(table.sha256()))
    return whole.hexdigest()
