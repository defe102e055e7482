"""A checkpoint's way from this machine to its COMMIT; runs in a thread and uses no collective."""

import hashlib
import json
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import TrainingError
from asclepius_ray.training.checkpoints.catalog import (
    COMMIT_NAME,
    Commit,
    Fragment,
    StoredFile,
    committed_steps,
    delete_step,
    outdated_steps,
    step_folder,
)
from asclepius_ray.training.checkpoints.storing import store_files
from asclepius_ray.transfers import tried_again

LOOK_SECONDS = 0.1
"""How often rank 0 looks for the other ranks' records."""


@dataclass(frozen=True)
class Group:
    """The workers that write together."""

    rank: int
    num_workers: int
    name: str
    """In every file's name: a lost group's rank that still uploads writes over none of another group's."""

    def record_name(self, rank: int) -> str:
        return f"rank-{rank:04d}-{self.name}.json"

    def file_names(self, count: int) -> list[str]:
        return [f"rank-{self.rank:04d}-{self.name}-{number:04d}.safetensors" for number in range(count)]


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint as a rank knows it once its part is on the local disk."""

    training: Folder
    total_steps: int
    source: Path
    """Where this rank's files are."""
    fragments: list[list[Fragment]]
    """What each of them holds."""
    state: dict[str, Any]
    zero_stage: int
    adam_step: int
    parameters: dict[str, int]

    @property
    def target(self) -> Folder:
        return step_folder(self.training, self.total_steps)


def finish_part(checkpoint: Checkpoint, group: Group) -> None:
    """Brings this rank's files to storage, and its record once they are there."""
    target = checkpoint.target
    names = group.file_names(len(checkpoint.fragments))
    stored = store_files(checkpoint.source, names, target)
    files = [
        StoredFile(name, size, digest, tuple(fragments)).to_json()
        for name, (size, digest), fragments in zip(names, stored, checkpoint.fragments, strict=True)
    ]
    _write(target, group.record_name(group.rank), json.dumps(files).encode())
    if not target.is_local:
        shutil.rmtree(checkpoint.source)


def commit(checkpoint: Checkpoint, group: Group, given_up: threading.Event) -> None:
    """Waits for every rank's record and writes COMMIT; a TrainingError if `given_up` is set before."""
    target = checkpoint.target
    content = json.dumps(checkpoint.state).encode()
    state = StoredFile(f"state-{group.name}.json", len(content), hashlib.sha256(content).hexdigest())
    _write(target, state.name, content)
    files: list[StoredFile] = []
    for rank in range(group.num_workers):
        while not target.exists(group.record_name(rank)):
            if given_up.wait(LOOK_SECONDS):
                raise TrainingError(
                    f"the checkpoint of step {checkpoint.total_steps} was given up: rank {rank} is gone"
                )
        record = json.loads(target.read_bytes(group.record_name(rank)))
        files += [StoredFile.from_json(file) for file in record]
    whole = Commit(
        total_steps=checkpoint.total_steps,
        num_workers=group.num_workers,
        zero_stage=checkpoint.zero_stage,
        adam_step=checkpoint.adam_step,
        parameters=checkpoint.parameters,
        state=state,
        files=tuple(files),
    )
    _write(target, COMMIT_NAME, whole.to_bytes())


def remove_outdated(training: Folder, num_kept: int, best: int | None) -> None:
    for step in outdated_steps(committed_steps(training), num_kept, best):
        delete_step(training, step)


def _write(target: Folder, name: str, content: bytes) -> None:
    tried_again(lambda: target.write_bytes(name, content), target)
