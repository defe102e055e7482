"""Folders of a run, here or in a bucket, and the manifest that makes each of them an artefact.

A folder is whole if and only if its `manifest.json` is there: it is written last, atomically.
The same code serves a local path and a URI (s3://, gs://), through pyarrow's file systems.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

import pyarrow.fs
from pydantic import BaseModel, ConfigDict, ValidationError

from asclepius_ray.errors import ArtifactError, ConfigError
from asclepius_ray.fence import confirm_root

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
SUMS_NAME = "SHA256SUMS"
"""Hashes that were taken while files were written, in the form that `sha256sum -c` reads."""
CONFIRM_SECONDS = 2.0
"""So often it is asked whether the root is still this run's while many files are removed."""
# A secret may hold a slash; what is behind a colon and no number is a secret, and no port.
KEY_IN_ADDRESS = re.compile(r"^(\w+://)([^/?]*@|[^/?:]+:(?!\d+([/?]|$))[^?]*@)")
_PRIVATE = 0o600
"""Files hold texts of patients; the folder of the run is closed to others as well."""
_READS = 20
"""So often a small file of a bucket is read, where it is written anew meanwhile."""
_PACKAGES = ("asclepius-ray", "ray", "torch", "deepspeed", "transformers", "aiohttp", "pyarrow")


@dataclass(frozen=True)
class Folder:
    """One folder: `uri` as the user wrote it (a path or scheme://bucket/prefix)."""

    uri: str

    @property
    def is_local(self) -> bool:
        return "://" not in self.uri or self.uri.startswith("file://")

    @property
    def name(self) -> str:
        """The last part of the path."""
        base = self.uri if self.is_local else self.uri.partition("?")[0]
        return base.rstrip("/").rpartition("/")[2]

    @property
    def run_label(self) -> str:
        """The name and a hash of the address: roots of the same name are told apart in figures."""
        digest = hashlib.sha256(self.shown.rstrip("/").encode()).hexdigest()
        return f"{self.name}-{digest[:6]}"

    @property
    def local_path(self) -> Path:
        """The path of a local folder; an ArtifactError for one in a bucket."""
        if not self.is_local:
            raise ArtifactError(f"{self.shown} is in a bucket; this needs a local folder")
        return Path(self.uri.removeprefix("file://")).expanduser()

    @property
    def shown(self) -> str:
        """The address for a message: without its query, and without what before its @ may be a key."""
        return self.uri if self.is_local else KEY_IN_ADDRESS.sub(r"\1***@", self.uri.partition("?")[0])

    def child(self, name: str) -> "Folder":
        # A URI may end in a query (endpoint_override=…) that belongs to the file system.
        base, mark, query = (self.uri, "", "") if self.is_local else self.uri.partition("?")
        return Folder(f"{base.rstrip('/')}/{name}{mark}{query}")

    def absolute(self) -> "Folder":
        """The same folder with a path that holds in every process of this machine."""
        return Folder(str(self.local_path.absolute())) if self.is_local else self

    def _open(self) -> tuple[pyarrow.fs.FileSystem, str]:
        if self.is_local:
            return pyarrow.fs.LocalFileSystem(), str(self.local_path.absolute())
        try:
            found: tuple[pyarrow.fs.FileSystem, str] = pyarrow.fs.FileSystem.from_uri(self.uri)
        except OSError as error:
            raise ConfigError(
                f"{self.shown} cannot be reached ({type(error).__name__}); check the network, the bucket's "
                "name, and the keys in the environment"
            ) from None
        except pyarrow.ArrowInvalid as error:
            # Neither the address nor the library's words are repeated whole: both may hold a key.
            raise ConfigError(
                f"{self.shown} cannot be opened as a file system ({type(error).__name__}); local paths, "
                "s3:// and gs:// addresses are known"
            ) from None
        return found

    def filesystem(self) -> tuple[pyarrow.fs.FileSystem, str]:
        """pyarrow's file system and the path in it, for readers and writers of tables.

        A query string of a URI (endpoint_override=…) belongs to the file system, not to the path.
        """
        return self._open()

    def exists(self, name: str = "") -> bool:
        filesystem, path = self._open()
        info = filesystem.get_file_info(f"{path}/{name}" if name else path)
        return bool(info.type != pyarrow.fs.FileType.NotFound)

    def names(self) -> list[str]:
        """Every file below the folder, as sorted names relative to it; none if it is not there."""
        return sorted(self.sizes())

    def sizes(self) -> dict[str, int]:
        """Every file below the folder, as its name relative to it and its bytes."""
        filesystem, path = self._open()
        selector = pyarrow.fs.FileSelector(path, recursive=True, allow_not_found=True)
        prefix = path.rstrip("/") + "/"
        return {
            info.path.removeprefix(prefix): info.size
            for info in filesystem.get_file_info(selector)
            if info.type == pyarrow.fs.FileType.File
        }

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """So many bytes of a file from an offset on; fewer where it ends before."""
        filesystem, path = self._open()
        with filesystem.open_input_file(f"{path}/{name}") as file:
            size = file.size()
            if offset >= size:
                return b""
            return bytes(file.read_at(min(length, size - offset), offset))

    def delete(self, name: str) -> None:
        """Removes one file; one that is gone already is no error."""
        filesystem, path = self._open()
        with suppress(FileNotFoundError):
            filesystem.delete_file(f"{path}/{name}")

    def read_bytes(self, name: str) -> bytes:
        """One small file as it stood at one moment, also while somebody writes it anew.

        In a bucket pyarrow asks for the length first and then for so many bytes: of an object that became
        longer in between it brings the beginning alone (82 of 991 reads of a lease under steady writing), and
        of one that was removed in between it says that the bucket failed (27 of 1,474). Raises a
        FileNotFoundError for what is not there, and an OSError where every try met another's writing.
        """
        filesystem, path = self._open()
        if isinstance(filesystem, pyarrow.fs.LocalFileSystem):
            with filesystem.open_input_stream(f"{path}/{name}") as stream:
                return bytes(stream.read())
        failure = OSError(f"{self.shown}/{name} was written anew during each of {_READS} tries to read it")
        for _ in range(_READS):
            try:
                with filesystem.open_input_stream(f"{path}/{name}") as stream:
                    content = bytes(stream.read())
            except FileNotFoundError:
                raise
            except OSError as error:
                # Where the bucket itself is away, the next question raises that.
                failure, content = error, b""
            if filesystem.get_file_info(f"{path}/{name}").size == len(content):
                return content
        raise failure

    def write_bytes(self, name: str, content: bytes) -> None:
        """Writes one small file so that a reader sees all of it or nothing of it."""
        filesystem, path = self._open()
        if isinstance(filesystem, pyarrow.fs.LocalFileSystem):
            _replace_file(Path(path) / name, content)
            return
        with filesystem.open_output_stream(f"{path}/{name}") as stream:
            stream.write(content)

    def open_output(self, name: str) -> IO[bytes]:
        """A stream to a new file, for content that is not held in memory at once."""
        filesystem, path = self._open()
        target = f"{path}/{name}"
        if isinstance(filesystem, pyarrow.fs.LocalFileSystem):
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            Path(target).touch(mode=_PRIVATE)
        stream: IO[bytes] = filesystem.open_output_stream(target)
        return stream

    def open_input(self, name: str) -> IO[bytes]:
        """A stream of a file, for content that is not held in memory at once."""
        filesystem, path = self._open()
        stream: IO[bytes] = filesystem.open_input_stream(f"{path}/{name}")
        return stream

    def make(self) -> None:
        """Makes the folder; a new local one is readable by its owner alone (mode 0700)."""
        if self.is_local:
            self.local_path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def clear(self) -> None:
        """Removes the folder's manifest first and then the rest, so that no half of it looks whole."""
        confirm_root()
        filesystem, path = self._open()
        if self.exists(MANIFEST_NAME):
            filesystem.delete_file(f"{path}/{MANIFEST_NAME}")
        if self.is_local:
            if Path(path).exists():
                shutil.rmtree(path)
            return
        self.delete_all(self.names())

    def delete_all(self, names: Iterable[str]) -> None:
        """Removes these files, however long it takes, as long as the root is this run's."""
        filesystem, path = self._open()
        looked = float("-inf")
        for name in names:
            if time.monotonic() - looked >= CONFIRM_SECONDS:
                confirm_root()
                looked = time.monotonic()
            with suppress(FileNotFoundError):
                filesystem.delete_file(f"{path}/{name}")

    def upload(self, source: Path) -> None:
        """Copies every file below a local folder into this one."""
        for file in _files_below(source):
            with file.open("rb") as reader, self.open_output(file.relative_to(source).as_posix()) as writer:
                shutil.copyfileobj(reader, writer, 1 << 22)

    def download(self, target: Path) -> None:
        """Copies every file of this folder below a local folder."""
        for name in self.names():
            file = target / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch(mode=_PRIVATE)
            with self.open_input(name) as reader, file.open("wb") as writer:
                shutil.copyfileobj(reader, writer, 1 << 22)

    @contextmanager
    def as_local(self) -> Iterator[Path]:
        """The folder as a local path; one in a bucket is copied for as long as the context lasts."""
        if self.is_local:
            yield self.local_path
            return
        with tempfile.TemporaryDirectory(prefix="asclepius-") as copy:
            self.download(Path(copy))
            yield Path(copy)

    def sha256(self, name: str) -> str:
        digest = hashlib.sha256()
        with self.open_input(name) as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
        return digest.hexdigest()


class Manifest(BaseModel):
    """What an artefact is: how many, which files, what it was made from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = FORMAT_VERSION
    artifact: str
    """The folder's name in the run: "dataset", "model", …"""
    counts: dict[str, Any]
    files: dict[str, str]
    """File name → sha256."""
    made_from: dict[str, Any]
    """The fingerprint: every setting and input artefact that the content depends on."""
    details: dict[str, Any] = {}
    """What else a reader wants to know: times, tokens, costs, prompts' hashes."""
    packages: dict[str, str]

    @property
    def identity(self) -> str:
        """A sha256 over what the artefact holds and was made from; goes into what is made of it."""
        content = {"files": self.files, "made_from": self.made_from}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_manifest(
    folder: Folder,
    artifact: str,
    counts: dict[str, Any],
    made_from: dict[str, Any],
    details: dict[str, Any] | None = None,
    files: Sequence[str] | None = None,
) -> Manifest:
    """Hashes the files and writes the folder's manifest: from then on the artefact is whole.

    `files`: those that belong to the artefact; by default all that are in the folder. Hashes that were
    taken while the files were written (`SHA256SUMS`) are not taken again.
    """
    names = folder.names() if files is None else files
    known = read_sums(folder)
    manifest = Manifest(
        artifact=artifact,
        counts=counts,
        files={
            name: known[name] if name in known else folder.sha256(name)
            for name in names
            if name != MANIFEST_NAME
        },
        made_from=made_from,
        details=details or {},
        packages=_installed_packages(),
    )
    confirm_root()
    folder.write_bytes(MANIFEST_NAME, (manifest.model_dump_json(indent=2) + "\n").encode())
    return manifest


def read_manifest(folder: Folder) -> Manifest:
    """Reads a folder's manifest; an ArtifactError if there is none or it is of another format."""
    if not folder.exists(MANIFEST_NAME):
        raise ArtifactError(f"{folder.shown} is not finished: it has no {MANIFEST_NAME}")
    try:
        values = json.loads(folder.read_bytes(MANIFEST_NAME))
    except ValueError as error:
        raise ArtifactError(
            f"{folder.shown}/{MANIFEST_NAME} is not readable JSON ({error}); remove the folder and rerun"
        ) from None
    found = values.get("format_version") if isinstance(values, dict) else None
    if found != FORMAT_VERSION:
        raise ArtifactError(
            f"{folder.shown} has format version {found!r}, this program reads {FORMAT_VERSION}; "
            "use the version that wrote it, or another root"
        )
    try:
        return Manifest.model_validate(values)
    except ValidationError as error:
        raise ArtifactError(
            f"{folder.shown}/{MANIFEST_NAME} is damaged in {error.error_count()} place(s); "
            "remove the folder and rerun"
        ) from None


def write_sums(folder: Folder, hashes: Mapping[str, str]) -> None:
    """Writes the hashes of large files beside them, so that nobody has to read those again to know them."""
    lines = [f"{digest}  {name}\n" for name, digest in sorted(hashes.items())]
    folder.write_bytes(SUMS_NAME, "".join(lines).encode())


def read_sums(folder: Folder) -> dict[str, str]:
    """The hashes that lie beside a folder's files, by name; {} if there are none."""
    if not folder.exists(SUMS_NAME):
        return {}
    lines = folder.read_bytes(SUMS_NAME).decode().splitlines()
    return {name: digest for digest, name in (line.split("  ", 1) for line in lines)}


def is_finished(folder: Folder) -> bool:
    return folder.exists(MANIFEST_NAME)


def _installed_packages() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _files_below(folder: Path) -> Iterator[Path]:
    return (file for file in sorted(folder.rglob("*")) if file.is_file())


def _sync_folder(folder: Path) -> None:
    """Makes a rename in the folder outlive a loss of power."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _replace_file(target: Path, content: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
    try:
        partial.touch(mode=_PRIVATE)
        with partial.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(target)
        _sync_folder(target.parent)
    finally:
        partial.unlink(missing_ok=True)
