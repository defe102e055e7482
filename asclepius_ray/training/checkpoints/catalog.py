"""What is in a run's `training/`: which checkpoints are whole, what each holds, which may go.

Needs neither ray nor torch: the driver, the doctor and the report read it as well.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow.fs

from asclepius_ray.artifacts import Folder

FORMAT_VERSION = 1
COMMIT_NAME = "COMMIT"
_STEP = re.compile(r"step-(\d+)/(.+)")


class DamagedCheckpointError(Exception):
    """What is wrong with one checkpoint; the one before may still be whole."""


@dataclass(frozen=True)
class Fragment:
    """Elements `start : start + size` of one parameter, seen as a flat list."""

    name: str
    start: int
    size: int


@dataclass(frozen=True)
class StoredFile:
    """One file of a checkpoint; its fragments are in it three times: master, exp_avg and exp_avg_sq."""

    name: str
    num_bytes: int
    sha256: str
    fragments: tuple[Fragment, ...] = ()

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "StoredFile":
        fragments = tuple(Fragment(*fragment) for fragment in values["fragments"])
        return cls(values["name"], values["num_bytes"], values["sha256"], fragments)

    def to_json(self) -> dict[str, Any]:
        # As lists and not as tables: there are thousands of them.
        fragments = [[part.name, part.start, part.size] for part in self.fragments]
        return {**asdict(self), "fragments": fragments}


@dataclass(frozen=True)
class Commit:
    """The content of `COMMIT`: a checkpoint with all that is needed to read it."""

    total_steps: int
    num_workers: int
    zero_stage: int
    adam_step: int
    parameters: dict[str, int]
    """Trainable parameter → how many elements it has."""
    state: StoredFile
    """The loop's own state, as JSON."""
    files: tuple[StoredFile, ...]

    def to_bytes(self) -> bytes:
        values = {
            **vars(self),
            "format_version": FORMAT_VERSION,
            "state": self.state.to_json(),
            "files": [file.to_json() for file in self.files],
        }
        return json.dumps(values).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> "Commit":
        """A DamagedCheckpointError if this is no `COMMIT` of this format."""
        try:
            values = json.loads(content)
            version = values.pop("format_version")
            if version != FORMAT_VERSION:
                raise DamagedCheckpointError(
                    f"its {COMMIT_NAME} has format version {version}, not {FORMAT_VERSION}"
                )
            state = StoredFile.from_json(values.pop("state"))
            files = tuple(StoredFile.from_json(file) for file in values.pop("files"))
            return cls(**values, state=state, files=files)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise DamagedCheckpointError(f"its {COMMIT_NAME} is not readable") from None


def step_folder(training: Folder, total_steps: int) -> Folder:
    return training.child(f"step-{total_steps:07d}")


def find_steps(training: Folder) -> dict[int, bool]:
    """Steps that have a folder, the newest first, and whether each is committed."""
    found: dict[int, bool] = {}
    for name in training.names():
        if match := _STEP.fullmatch(name):
            step = int(match[1])
            found[step] = found.get(step, False) or match[2] == COMMIT_NAME
    return {step: found[step] for step in sorted(found, reverse=True)}


def committed_steps(training: Folder) -> list[int]:
    """The steps of the checkpoints that were finished, the newest first."""
    return [step for step, committed in find_steps(training).items() if committed]


def read_commit(training: Folder, total_steps: int) -> Commit:
    """What a checkpoint holds; a DamagedCheckpointError if its COMMIT cannot be read."""
    try:
        return Commit.from_bytes(step_folder(training, total_steps).read_bytes(COMMIT_NAME))
    except FileNotFoundError:
        raise DamagedCheckpointError(f"it has no {COMMIT_NAME}") from None


def outdated_steps(committed: Iterable[int], num_kept: int, best: int | None) -> list[int]:
    """The checkpoints that may go: all but the newest `num_kept` and the best one."""
    newest_first = sorted(committed, reverse=True)
    return [step for step in newest_first[num_kept:] if step != best]


def delete_step(training: Folder, total_steps: int) -> None:
    """Removes a checkpoint, its COMMIT first: half of it never looks like a whole one."""
    folder = step_folder(training, total_steps)
    folder.delete(COMMIT_NAME)
    filesystem, path = folder.filesystem()
    if filesystem.get_file_info(path).type == pyarrow.fs.FileType.Directory:
        filesystem.delete_dir(path)
