"""Reads the project's files and the run file; writes one zip archive, the working folder of a Ray job.

Only code travels: `asclepius_ray/`, the pages and run files of `jobs/`, the files that pin the stack, and the
tables that the run reads if they lie in `jobs/`. Keys, other data, runs, environments and caches stay here.
The same files give the same bytes, so that Ray, which names a package by its hash, keeps one copy of it.
"""

import os
import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import asclepius_ray
from asclepius_ray.errors import SubmitError

MAX_PACKAGE_BYTES = 20_000_000
RUN_FILE_NAME = "run.toml"
_FOLDERS = ("asclepius_ray", "jobs")
_SUFFIXES_OF_JOBS = frozenset({".py", ".toml"})
_FILES = ("LICENSE", "constraints.txt", "pyproject.toml")
_FOLDERS_LEFT_OUT = frozenset({"__pycache__", "venv", "node_modules"})
_MARKS_OF_FOLDERS_LEFT_OUT = ("pyvenv.cfg", "run.json")
"""An environment and the folder of a run, whatever they are called."""
_RAW_BYTES_PER_PACKAGED_BYTE = 10
"""Nothing is compressed where the files are so large that no compression would help."""
_SHOWN_FILES = 5


@dataclass(frozen=True)
class Package:
    """An archive that is ready to be sent."""

    path: Path
    num_files: int
    size_bytes: int


def find_project() -> Path:
    """The folder that holds the package: the project's tree, or where the package is installed."""
    return Path(asclepius_ray.__file__).resolve().parents[1]


def has_jobs(project: Path) -> bool:
    """Whether `project` is the project's tree; where packages are installed there is no `jobs/` of ours."""
    return (project / "jobs" / "pipeline.py").is_file() and (project / "pyproject.toml").is_file()


def build_package(project: Path, run_file: Path, target: Path, sources: Collection[Path] = ()) -> Package:
    """Writes the archive to `target`; a SubmitError names the biggest files of one above the limit.

    `sources`: the files and folders that the run reads.
    """
    files = {RUN_FILE_NAME: run_file} | list_files(project, sources)
    total = sum(path.stat().st_size for path in files.values())
    if total > MAX_PACKAGE_BYTES * _RAW_BYTES_PER_PACKAGED_BYTE:
        raise _too_large(f"{_megabytes(total)} before compression", files)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            # A fixed time and mode: the archive's bytes are a function of the files' contents.
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, files[name].read_bytes())
    size_bytes = target.stat().st_size
    if size_bytes > MAX_PACKAGE_BYTES:
        raise _too_large(_megabytes(size_bytes), files)
    return Package(target, len(files), size_bytes)


def list_files(project: Path, sources: Collection[Path] = ()) -> dict[str, Path]:
    """Every file that travels, by its name in the archive; of `sources` what lies in `jobs/`."""
    names = [name for name in _FILES if (project / name).is_file()] if has_jobs(project) else []
    files = {name: project / name for name in names}
    for folder in _FOLDERS if has_jobs(project) else _FOLDERS[:1]:
        for path in _walk(project / folder):
            if folder != "jobs" or path.suffix in _SUFFIXES_OF_JOBS or _is_of(sources, path):
                files[path.relative_to(project).as_posix()] = path
    return files


def _is_of(sources: Collection[Path], path: Path) -> bool:
    return any(path.resolve().is_relative_to(source.resolve()) for source in sources)


def _walk(folder: Path) -> list[Path]:
    found: list[Path] = []
    for parent, folders, files in os.walk(folder):
        if any(mark in files for mark in _MARKS_OF_FOLDERS_LEFT_OUT):
            folders.clear()
            continue
        folders[:] = [name for name in folders if name not in _FOLDERS_LEFT_OUT and name[0] != "."]
        found += [Path(parent) / name for name in files if name[0] != "." and not name.endswith(".pyc")]
    return found


def _too_large(size: str, files: dict[str, Path]) -> SubmitError:
    by_size = sorted(files, key=lambda name: files[name].stat().st_size, reverse=True)[:_SHOWN_FILES]
    biggest = ", ".join(f"{name} ({_megabytes(files[name].stat().st_size)})" for name in by_size)
    return SubmitError(
        f"the job package has {size}, and at most {_megabytes(MAX_PACKAGE_BYTES)} are sent; its biggest "
        f"files are {biggest}: move data out of jobs/ and asclepius_ray/, to a bucket or a shared folder"
    )


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:.2f} MB"
