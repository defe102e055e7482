"""The state of a training run at one step: DeepSpeed's shards of every rank, and one JSON file.

A checkpoint exists once Ray Train has committed it: all ranks' files are in storage and its snapshot
names it. What is not named there is not there, and is overwritten.
"""

import json
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import ray.train
from deepspeed import DeepSpeedEngine

from asclepius_ray.errors import TrainingError

STATE_NAME = "state.json"
TAG = "shards"


@dataclass
class LoopState:
    """Where the run is: the next step to take, and every metric line so far."""

    phase: int = 0
    step: int = 0
    """Steps done in this phase."""
    total_steps: int = 0
    """Steps done over all phases."""
    store_sha256: str = ""
    """The token store that the steps were taken on; "" before the first."""
    history: list[dict[str, Any]] = field(default_factory=list)


def save_checkpoint(engine: DeepSpeedEngine, state: LoopState, rank: int) -> None:
    """Saves from all ranks, and returns when Ray Train has committed it. Every rank must call it."""
    with tempfile.TemporaryDirectory() as scratch:
        engine.save_checkpoint(scratch, tag=TAG, client_state={"total_steps": state.total_steps})
        if rank == 0:
            (Path(scratch) / STATE_NAME).write_text(json.dumps(asdict(state)))
        ray.train.report(
            {"total_steps": state.total_steps},
            checkpoint=ray.train.Checkpoint.from_directory(scratch),
            checkpoint_dir_name=f"step-{state.total_steps:07d}-phase-{state.phase}",
        )
    # A report that has returned is not yet in the snapshot: killed now, the run would fall back behind it.
    ray.train.get_all_reported_checkpoints()


def restore_checkpoint(engine: DeepSpeedEngine) -> LoopState:
    """Loads the newest committed checkpoint into the engine; a fresh state if there is none."""
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return LoopState()
    with checkpoint.as_directory() as folder:
        state = LoopState(**json.loads((Path(folder) / STATE_NAME).read_text()))
        path, client_state = engine.load_checkpoint(folder, tag=TAG)
    # DeepSpeed only warns when it finds nothing, and would train from the start.
    if path is None or client_state.get("total_steps") != state.total_steps:
        raise TrainingError(
            f"the checkpoint of step {state.total_steps} could not be loaded whole; "
            "use --redo train to train from the start"
        )
    return state
