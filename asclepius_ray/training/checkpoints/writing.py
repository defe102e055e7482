"""Saves the engine's state from all ranks: training stands still for the local copy alone.

The rest happens in a thread of each rank: files go to storage with their sha256, then the rank's record;
rank 0 waits for all records, writes COMMIT and removes what is outdated.
"""

import threading
import time
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch.distributed
from deepspeed import DeepSpeedEngine

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import TrainingError
from asclepius_ray.training.checkpoints.adam import read_adam_step
from asclepius_ray.training.checkpoints.catalog import step_folder
from asclepius_ray.training.checkpoints.finishing import (
    Checkpoint,
    Group,
    commit,
    finish_part,
    remove_outdated,
)
from asclepius_ray.training.checkpoints.pieces import check_optimizer, parameter_sizes, pieces_to_save
from asclepius_ray.training.checkpoints.scratch import scratch_folder
from asclepius_ray.training.checkpoints.shards import group_pieces, write_files
from asclepius_ray.training.checkpoints.storing import PARTIAL_SUFFIX, storage_errors_named
from asclepius_ray.training.loop_state import LoopState

AGREE_SECONDS = 0.05


@dataclass(frozen=True)
class Saved:
    """A checkpoint that is whole."""

    total_steps: int
    seconds: float
    """From the start of its saving to its COMMIT; on other ranks than 0, to this rank's own end."""


class CheckpointWriter:
    """Writes the checkpoints of one group of workers; a context, entered by every rank."""

    def __init__(self, engine: DeepSpeedEngine, training: Folder, num_kept: int) -> None:
        check_optimizer(engine)
        self._engine = engine
        self._training = training
        self._num_kept = num_kept
        name = [uuid.uuid4().hex[:8]]
        torch.distributed.broadcast_object_list(name, src=0)
        self._group = Group(torch.distributed.get_rank(), torch.distributed.get_world_size(), name[0])
        self._context = ExitStack()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._given_up = threading.Event()
        self._running: Future[Saved] | None = None
        self._last_step = 0
        self._blocked_seconds = 0.0
        self._saved: list[Saved] = []

    def __enter__(self) -> "CheckpointWriter":
        if not self._training.is_local:
            self._scratch = self._context.enter_context(scratch_folder())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # An error of ours is met by all ranks or after a finished upload; another one may have taken a
            # rank away, whose record would never come.
            if error is None or isinstance(error, TrainingError):
                self.wait()
        finally:
            self._given_up.set()
            self._pool.shutdown(wait=False)
            self._context.close()

    def resume_from(self, total_steps: int) -> None:
        """The step of the checkpoint that was read: it is not saved again."""
        self._last_step = total_steps

    def take_blocked_seconds(self) -> float:
        """For how long training has stood still for checkpoints since the last call."""
        seconds, self._blocked_seconds = self._blocked_seconds, 0.0
        return seconds

    def take_saved(self) -> list[Saved]:
        """The checkpoints that have become whole since the last call."""
        saved, self._saved = self._saved, []
        return saved

    def check(self) -> None:
        """Raises what the thread has met; notes a checkpoint that has become whole."""
        if self._running is not None and self._running.done():
            self.wait()

    def wait(self) -> None:
        """Returns when this rank's part is in storage; on rank 0, when the checkpoint is committed."""
        running, self._running = self._running, None
        if running is not None:
            with storage_errors_named(self._training):
                self._saved.append(running.result())

    def save(self, state: LoopState) -> None:
        """Starts a checkpoint of this moment; waits for the one before. Every rank must call it."""
        if state.total_steps == self._last_step:
            return
        started = time.monotonic()
        self.wait()
        with storage_errors_named(self._training):
            checkpoint = self._write_locally(state)
        self._last_step = state.total_steps
        best = state.best.total_steps if state.best else None
        self._running = self._pool.submit(self._finish, checkpoint, best, started)
        self._blocked_seconds += time.monotonic() - started

    def save_and_wait(self, state: LoopState) -> None:
        """Returns on every rank when the checkpoint of this moment is committed."""
        self.save(state)
        self.settle()

    def settle(self) -> None:
        """Returns on every rank when the last checkpoint is committed."""
        started = time.monotonic()
        # Rank 0 commits: once its part is done, all is. Asked again and again, since an upload may take
        # longer than a collective is waited for.
        while self._is_running_anywhere():
            time.sleep(AGREE_SECONDS)
        self.wait()
        self._blocked_seconds += time.monotonic() - started

    def _is_running_anywhere(self) -> bool:
        is_running = self._running is not None and not self._running.done()
        running = torch.tensor(int(is_running), device=self._engine.device)
        torch.distributed.all_reduce(running)
        return bool(running.item())

    def _write_locally(self, state: LoopState) -> Checkpoint:
        pieces = pieces_to_save(self._engine, self._group.rank, self._group.num_workers)
        groups = group_pieces(pieces)
        checkpoint = Checkpoint(
            training=self._training,
            total_steps=state.total_steps,
            source=self._local_folder(state.total_steps),
            fragments=[[piece.fragment for piece in group] for group in groups],
            state=state.to_json(),
            zero_stage=self._engine.zero_optimization_stage(),
            adam_step=read_adam_step(self._engine),
            parameters=parameter_sizes(self._engine),
        )
        partial = [name + PARTIAL_SUFFIX for name in self._group.file_names(len(groups))]
        try:
            write_files(checkpoint.source, partial, groups)
        except OSError:
            # A full disk, most likely: the room is given back.
            for name in partial:
                (checkpoint.source / name).unlink(missing_ok=True)
            raise
        return checkpoint

    def _local_folder(self, total_steps: int) -> Path:
        target = step_folder(self._training, total_steps)
        if target.is_local:
            target.make()
            return target.local_path
        folder = self._scratch / str(total_steps)
        folder.mkdir(mode=0o700)
        return folder

    def _finish(self, checkpoint: Checkpoint, best: int | None, started: float) -> Saved:
        """What the thread does."""
        finish_part(checkpoint, self._group)
        if self._group.rank == 0:
            commit(checkpoint, self._group, self._given_up)
        seconds = time.monotonic() - started
        if self._group.rank == 0:
            remove_outdated(self._training, self._num_kept, best)
        return Saved(checkpoint.total_steps, seconds)
