"""A run's folder → how far each stage is, from a few small files: a bucket is asked some twenty times."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow.fs

from asclepius_ray.artifacts import Folder, is_finished, read_manifest
from asclepius_ray.errors import ArtifactError, ConfigError
from asclepius_ray.evaluation.status import STATUS_NAME as EVALUATION_STATUS_NAME
from asclepius_ray.lease import LEASE_NAME, Holder, Timing, read_holder, seems_live
from asclepius_ray.metric_log import METRICS_NAME, SEGMENTS
from asclepius_ray.synthesis.status import STATUS_NAME
from asclepius_ray.training.checkpoints.catalog import COMMIT_NAME

LAST_ARTEFACTS = {"synthesize": "dataset", "train": "model", "evaluate": "evaluation"}
"""Stage → the artefact whose manifest makes it finished."""
_COMMIT = re.compile(rf"step-(\d+)/{COMMIT_NAME}")
_TAIL_BYTES = 1 << 16
_OF_SYNTHESIS = frozenset({"rows", "cost_usd", "budget_usd", "updated_unix"})
_OF_EVALUATION = frozenset({"items", "grades", "seats"})
_WRITTEN_ANEW = "the stage writes it anew when it is at work; until then, remove it"


@dataclass(frozen=True)
class TrainingState:
    """What an unfinished training has: its newest metric line of a step, its newest whole checkpoint."""

    line: Mapping[str, Any] | None
    checkpoint_step: int | None
    checkpoint_unix: float | None


@dataclass(frozen=True)
class RunState:
    """All that `asclepius status` shows."""

    manifests: Mapping[str, Mapping[str, Any]]
    """Finished stage → the manifest of its last artefact."""
    synthesis: Mapping[str, Any] | None
    """The last look at the desk, of a synthesis that was ever begun."""
    training: TrainingState | None
    """None where no training was begun, or it is finished."""
    evaluation: Mapping[str, Any] | None
    holder: Holder | None
    is_live: bool

    @property
    def stage_at_work(self) -> str:
        """The stage that the holder is at, "" if nobody works here."""
        if not self.is_live or self.holder is None:
            return ""
        job = self.holder.purpose.partition(":")[0]
        unfinished = [stage for stage in LAST_ARTEFACTS if stage not in self.manifests]
        return job if job in LAST_ARTEFACTS else (unfinished or [""])[0] if job == "pipeline" else ""

    def is_begun(self, stage: str) -> bool:
        seen = {"synthesize": self.synthesis, "train": self.training, "evaluate": self.evaluation}
        return seen[stage] is not None


def read_state(root: Folder) -> RunState:
    """Reads it, changing nothing.

    Raises a ConfigError for a folder of no run, or one that cannot be read, and an ArtifactError for what is
    damaged in it or of another version.
    """
    try:
        return _read(root)
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())[:300]
        raise ConfigError(
            f"{root.shown} cannot be read ({reason}); check the address, the network, and the rights of "
            "this machine or of the keys in its environment"
        ) from None


def _read(root: Folder) -> RunState:
    there = _entries(root)
    if "run.json" not in there:
        raise ConfigError(
            f"{root.shown} is not the folder of a run: it has no run.json; give the `root` of its run "
            "file, on a cluster STORAGE/NAME, in a bucket that is there"
        )
    manifests = {
        stage: read_manifest(root.child(name)).model_dump()
        for stage, name in LAST_ARTEFACTS.items()
        if name in there and is_finished(root.child(name))
    }
    has_training = "training" in there and "train" not in manifests
    holder = read_holder(root) if LEASE_NAME in there else None
    is_evaluated = EVALUATION_STATUS_NAME in there
    evaluation = _json(root, EVALUATION_STATUS_NAME, _OF_EVALUATION) if is_evaluated else None
    return RunState(
        manifests,
        _json(root, STATUS_NAME, _OF_SYNTHESIS) if STATUS_NAME in there else None,
        _training(root.child("training")) if has_training else None,
        evaluation,
        holder,
        holder is not None and seems_live(holder, Timing()),
    )


def _entries(root: Folder) -> set[str]:
    """The names right below the root; none if it is not there."""
    filesystem, path = root.filesystem()
    selector = pyarrow.fs.FileSelector(path, recursive=False, allow_not_found=True)
    return {info.base_name for info in filesystem.get_file_info(selector)}


def _json(root: Folder, name: str, needs: frozenset[str]) -> dict[str, Any]:
    """A file that says how far a stage is; an ArtifactError where it is damaged or says less than that."""
    try:
        found = json.loads(root.read_bytes(name))
    except ValueError as error:
        raise ArtifactError(f"{root.shown}/{name} is damaged ({error}); {_WRITTEN_ANEW}") from None
    missing = needs - (found.keys() if isinstance(found, dict) else set())
    if missing:
        raise ArtifactError(
            f"{root.shown}/{name} has no {', '.join(sorted(missing))}: another version wrote it, or it is "
            f"damaged; {_WRITTEN_ANEW}"
        )
    whole: dict[str, Any] = found
    return whole


def _training(training: Folder) -> TrainingState:
    filesystem, path = training.filesystem()
    selector = pyarrow.fs.FileSelector(path, recursive=True, allow_not_found=True)
    prefix = path.rstrip("/") + "/"
    files = {info.path.removeprefix(prefix): info for info in filesystem.get_file_info(selector)}
    steps = {int(match[1]): files[name] for name in files if (match := _COMMIT.fullmatch(name))}
    newest = max(steps, default=None)
    segments = sorted(name for name in files if name.startswith(f"{SEGMENTS}/") and name.endswith(".jsonl"))
    log = METRICS_NAME if METRICS_NAME in files else (segments or [""])[-1]
    line = _last_step(training, log, files[log].size) if log else None
    return TrainingState(line, newest, None if newest is None else steps[newest].mtime.timestamp())


def _last_step(training: Folder, log: str, size: int) -> dict[str, Any] | None:
    """The newest line of a step; the first and the last line of what is read may be torn."""
    start = max(0, size - _TAIL_BYTES)
    content = training.read_range(log, start, _TAIL_BYTES)
    whole = content[: content.rfind(b"\n") + 1].splitlines()[1 if start else 0 :]
    try:
        steps = [line for line in map(json.loads, whole) if "loss" in line]
    except ValueError as error:
        raise ArtifactError(f"{training.shown}/{log} is damaged ({error}); remove it") from None
    return steps[-1] if steps else None
