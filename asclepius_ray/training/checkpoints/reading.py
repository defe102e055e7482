"""Finds the newest whole checkpoint and reads what this rank needs of it, at any world size and stage."""

import hashlib
import json
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch.distributed
from deepspeed import DeepSpeedEngine

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import TrainingError
from asclepius_ray.training.checkpoints.adam import write_adam_step
from asclepius_ray.training.checkpoints.catalog import (
    Commit,
    DamagedCheckpointError,
    StoredFile,
    delete_step,
    find_steps,
    read_commit,
    step_folder,
)
from asclepius_ray.training.checkpoints.pieces import owned_pieces, parameter_sizes, refresh_weights
from asclepius_ray.training.checkpoints.shards import check_coverage, copy_into, overlaps, wanted_by_name
from asclepius_ray.training.loop_state import LoopState
from asclepius_ray.transfers import tried_again

logger = logging.getLogger(__name__)
REREAD_SECONDS = 1.0
READERS = 4
"""Files in memory at once."""


def restore_newest(
    engine: DeepSpeedEngine, training: Folder, warn: Callable[[str], None]
) -> LoopState | None:
    """Loads the newest checkpoint that every rank can read; None if none was ever finished.

    One that is damaged is passed over, with a warning on rank 0. What was saved behind the loaded one is
    removed: the run goes on from there, and will come to those steps again. Every rank must call it.
    """
    is_first = torch.distributed.get_rank() == 0
    found = [find_steps(training) if is_first else {}]
    torch.distributed.broadcast_object_list(found, src=0)
    committed = [step for step, is_committed in found[0].items() if is_committed]
    state, loaded_step = None, 0
    for step in committed:
        state, problem = _try_load(engine, training, step)
        if state is not None:
            loaded_step = step
            break
        message = f"the checkpoint of step {step} is damaged ({problem}): the one before is tried"
        logger.warning(message)
        if is_first:
            warn(message)
    if committed and state is None:
        raise TrainingError(
            f"none of the {len(committed)} checkpoints in {training.uri} can be read whole; put back what is "
            "missing there, or use --redo train to train from the start"
        )
    if is_first:
        for step, is_committed in found[0].items():
            if step > loaded_step or not is_committed:
                delete_step(training, step)
    torch.distributed.barrier()
    return state and state.without_lost_best(committed)


def restore_weights(engine: DeepSpeedEngine, training: Folder, total_steps: int) -> None:
    """Loads one certain checkpoint of this very training; its loop's state is not taken. For every rank."""
    state, problem = _try_load(engine, training, total_steps)
    if state is None:
        raise TrainingError(
            f"the checkpoint of step {total_steps}, the best of its phase, is damaged ({problem}); put back "
            f"what is missing in {training.uri}, or use --redo train to train from the start"
        )


def _try_load(engine: DeepSpeedEngine, training: Folder, step: int) -> tuple[LoopState | None, str]:
    """The state if every rank has what it needs, else what the first of the others is missing."""
    state, problem = None, ""
    try:
        commit = read_commit(training, step)
        state = _load_own_part(engine, step_folder(training, step), commit)
    except DamagedCheckpointError as error:
        problem = str(error)
    problems: list[str] = [""] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(problems, problem)
    if first := next(filter(None, problems), ""):
        return None, first
    write_adam_step(engine, commit.adam_step)
    refresh_weights(engine)
    return state, ""


def _load_own_part(engine: DeepSpeedEngine, folder: Folder, commit: Commit) -> LoopState:
    if commit.parameters != parameter_sizes(engine):
        raise DamagedCheckpointError("it holds other parameters than this model has")
    state = LoopState.from_json(json.loads(_read_checked(folder, commit.state)))
    wanted = wanted_by_name(owned_pieces(engine))
    check_coverage((fragment for file in commit.files for fragment in file.fragments), wanted)
    needed = [file for file in commit.files if any(overlaps(fragment, wanted) for fragment in file.fragments)]
    with ThreadPoolExecutor(READERS) as pool:
        list(pool.map(lambda file: copy_into(_read_checked(folder, file), file.fragments, wanted), needed))
    return state


def _read_checked(folder: Folder, file: StoredFile) -> bytes:
    """The file's content, if it is what was written.

    Read once more before the verdict: a checkpoint that is held for damaged is lost.
    """
    problem = ""
    for wait_seconds in (0.0, REREAD_SECONDS):
        time.sleep(wait_seconds)
        try:
            content = tried_again(lambda: folder.read_bytes(file.name), folder)
        except FileNotFoundError:
            problem = f"{file.name} is missing"
            continue
        if len(content) == file.num_bytes and hashlib.sha256(content).hexdigest() == file.sha256:
            return content
        problem = f"{file.name} is not as it was written"
    raise DamagedCheckpointError(problem)
