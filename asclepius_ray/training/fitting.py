"""One call of Ray Train: workers from start to export, with their metrics shown while it blocks."""

import os
import threading
from typing import Any

import pyarrow
import ray
from ray.exceptions import RayError
from ray.train import CheckpointConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2.api.config import LoggingConfig

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import TrainingError
from asclepius_ray.training.board import Board
from asclepius_ray.training.config import TrainingConfig
from asclepius_ray.training.failures import original_error
from asclepius_ray.training.recorder import Recorder
from asclepius_ray.training.worker import train_on_worker

POLL_SECONDS = 0.5
STOP_GRACE_SECONDS = 30.0
COLLECTIVE_TIMEOUT_SECONDS = 1800
# What Ray Train reads from the driver's environment; the user's own values stay.
_RAY_TRAIN_DEFAULTS = {
    # A checkpoint is committed at the next poll; every save waits for it.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",
    # Includes the start of the workers' processes, which takes a while on a busy machine.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",
}


def fit(root: Folder, sequence_length: int, training: TrainingConfig, seed: int, recorder: Recorder) -> None:
    """Trains and exports; returns when both are done, or raises the workers' own error.

    If this thread is interrupted, the workers save a checkpoint at their next step and end.
    """
    board = ray.remote(num_cpus=0)(Board).remote()
    settings = {
        "root": root.uri,
        "sequence_length": sequence_length,
        "training": training.model_dump(mode="json"),
        "seed": seed,
        "board": board,
    }
    for name, value in _RAY_TRAIN_DEFAULTS.items():
        os.environ.setdefault(name, value)
    thread = FitThread(make_trainer(root, training, settings))
    thread.start()
    try:
        while thread.is_alive():
            thread.join(POLL_SECONDS)
            recorder.take(ray.get(board.drain.remote()))
    finally:
        if thread.is_alive():
            board.stop.remote()
            thread.join(STOP_GRACE_SECONDS)
        recorder.take(ray.get(board.drain.remote()))
        recorder.write()
    if thread.failure is not None:
        raise original_error(thread.failure) from thread.failure
    if not thread.succeeded:
        raise TrainingError("Ray Train ended without a result; the traceback above says why")


class IsolatedTrainer(TorchTrainer):  # type: ignore[misc]  # ray has no types
    """A TorchTrainer that is not disturbed by another Ray cluster on the same machine.

    Ray's placement group cleaner asks "is my controller alive?" of whichever cluster was started last
    here, and takes the workers away if that one says no. Ray removes the group with its controller anyway.
    """

    def _create_default_callbacks(self) -> list[Any]:
        callbacks: list[Any] = super()._create_default_callbacks()
        return [callback for callback in callbacks if not isinstance(callback, PlacementGroupCleanerCallback)]


class FitThread(threading.Thread):
    """`fit()` outside of the main thread, which thus keeps its signal handlers and shows progress."""

    def __init__(self, trainer: IsolatedTrainer) -> None:
        super().__init__(daemon=True, name="ray-train")
        self.failure: BaseException | None = None
        self.succeeded = False
        self._trainer = trainer

    def run(self) -> None:
        try:
            self._trainer.fit()
            self.succeeded = True
        except (TrainingFailedError, RayError, OSError, RuntimeError, ValueError) as error:
            self.failure = error


def make_trainer(root: Folder, training: TrainingConfig, settings: dict[str, Any]) -> IsolatedTrainer:
    filesystem, path = root.filesystem()
    local = isinstance(filesystem, pyarrow.fs.LocalFileSystem)
    return IsolatedTrainer(
        train_on_worker,
        train_loop_config=settings,
        scaling_config=ScalingConfig(num_workers=training.workers, use_gpu=training.use_gpu),
        torch_config=TorchConfig(
            backend="nccl" if training.use_gpu else "gloo", timeout_s=COLLECTIVE_TIMEOUT_SECONDS
        ),
        run_config=RunConfig(
            name="training",
            storage_path=path,
            storage_filesystem=None if local else filesystem,
            checkpoint_config=CheckpointConfig(num_to_keep=training.keep_checkpoints),
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )
