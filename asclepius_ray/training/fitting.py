"""One call of Ray Train: workers from start to export, with their metrics shown while it blocks."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow
import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError
from ray.train import RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2.api.config import LoggingConfig
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import TrainingError
from asclepius_ray.training.board import Board
from asclepius_ray.training.config import TrainingConfig
from asclepius_ray.training.failures import original_error
from asclepius_ray.training.process_group import OwnAddressConfig
from asclepius_ray.training.recorder import Recorder
from asclepius_ray.training.recovery import ElasticPolicy, RecoveryPolicy
from asclepius_ray.training.worker import train_on_worker

POLL_SECONDS = 0.5
STOP_GRACE_SECONDS = 30.0
COLLECTIVE_TIMEOUT_SECONDS = 1800
RESIZE_SECONDS = 10.0
"""How often Ray Train looks whether there could be more workers."""
START_TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
_RAY_TRAIN_DEFAULTS = {
    # How soon a lost worker is noticed.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",
    # How soon the notice of a drained node arrives: some clouds give half a minute in all.
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "1",
}


def fit(root: Folder, sequence_length: int, training: TrainingConfig, seed: int, recorder: Recorder) -> None:
    """Trains and exports; returns when both are done, or raises the workers' own error.

    If this thread is interrupted, the workers save a checkpoint at their next step and end.
    """
    board = start_board()
    settings = {
        "root": root.uri,
        "sequence_length": sequence_length,
        "training": training.model_dump(mode="json"),
        "seed": seed,
        "board": board,
    }
    with _ray_train_settings(training):
        thread = FitThread(make_trainer(root, training, settings))
        thread.start()
        try:
            while not thread.ended.wait(POLL_SECONDS):
                recorder.take(ray.get(board.drain.remote()))
        finally:
            if not thread.ended.is_set():
                board.stop.remote()
                _wait_for_the_last_checkpoint(thread, recorder)
            recorder.take(ray.get(board.drain.remote()))
    if thread.failure is not None:
        raise original_error(thread.failure) from thread.failure
    if not thread.succeeded:
        raise TrainingError("Ray Train ended without a result; the traceback above says why")


def _wait_for_the_last_checkpoint(thread: "FitThread", recorder: Recorder) -> None:
    """Waits while the workers end what they are at and save; whoever stops the run again cuts it short."""
    seconds = max(STOP_GRACE_SECONDS, recorder.seconds_to_stop)
    recorder.say(f"the workers are saving a checkpoint; it is waited for at most {seconds:.0f} s")
    if not thread.ended.wait(seconds):
        recorder.say(f"no checkpoint was finished in {seconds:.0f} s: the run goes on from the one before")


@contextmanager
def _ray_train_settings(training: TrainingConfig) -> Iterator[None]:
    """What Ray Train reads from the driver's environment; the user's own values stay."""
    is_elastic = training.workers.fewest < training.workers.most
    # How long it waits for the place of all workers: an elastic group soon tries with fewer.
    wanted = {**_RAY_TRAIN_DEFAULTS, START_TIMEOUT: "5" if is_elastic else "300"}
    ours = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        # The next training of this process may want others.
        for name in ours:
            del os.environ[name]


class IsolatedTrainer(TorchTrainer):  # type: ignore[misc]  # ray has no types
    """A TorchTrainer that is not disturbed by another Ray cluster on the same machine.

    Ray's placement group cleaner asks "is my controller alive?" of whichever cluster was started last
    here, and takes the workers away if that one says no. Ray removes the group with its controller anyway.
    """

    def _create_default_callbacks(self) -> list[Any]:
        callbacks: list[Any] = super()._create_default_callbacks()
        return [callback for callback in callbacks if not isinstance(callback, PlacementGroupCleanerCallback)]


class ResumingTrainer(IsolatedTrainer):
    """One whose controller recovers as `recovery` says."""

    def __init__(self, *arguments: Any, training: TrainingConfig, root: Folder, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._training = training
        self._root = root

    def _initialize_and_run_controller(self, **settings: Any) -> Any:
        board = self.train_loop_config["board"]
        failure_policy = RecoveryPolicy(self._training.max_failures, self._root.child("training"), board)
        policies: dict[str, Any] = {"failure_policy": failure_policy}
        if self.scaling_config.elasticity_enabled:
            policies["scaling_policy"] = ElasticPolicy(self.scaling_config, board)
        return super()._initialize_and_run_controller(**{**settings, **policies})


def start_board() -> ActorHandle:
    """On this very node: it must outlive all others."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=here)(Board).remote()


class FitThread(threading.Thread):
    """`fit()` outside of the main thread, which thus keeps its signal handlers and shows progress."""

    def __init__(self, trainer: IsolatedTrainer) -> None:
        super().__init__(daemon=True, name="ray-train")
        # Python 3.11 takes a thread for ended whose join() was interrupted by Ctrl-C.
        self.ended = threading.Event()
        self.failure: BaseException | None = None
        self.succeeded = False
        self._trainer = trainer

    def run(self) -> None:
        try:
            self._trainer.fit()
            self.succeeded = True
        except (TrainingFailedError, RayError, OSError, RuntimeError, ValueError) as error:
            self.failure = error
        finally:
            self.ended.set()


def make_trainer(root: Folder, training: TrainingConfig, settings: dict[str, Any]) -> ResumingTrainer:
    filesystem, path = root.filesystem()
    local = isinstance(filesystem, pyarrow.fs.LocalFileSystem)
    fewest, most = training.workers
    return ResumingTrainer(
        train_on_worker,
        training=training,
        root=root,
        train_loop_config=settings,
        scaling_config=ScalingConfig(
            num_workers=most if fewest == most else (fewest, most),
            use_gpu=training.use_gpu,
            elastic_resize_monitor_interval_s=RESIZE_SECONDS,
        ),
        torch_config=OwnAddressConfig(
            backend="nccl" if training.use_gpu else "gloo", timeout_s=COLLECTIVE_TIMEOUT_SECONDS
        ),
        # The checkpoints are ours: Ray Train is told of none, and the failures are the policy's.
        run_config=RunConfig(
            name="training",
            storage_path=path,
            storage_filesystem=None if local else filesystem,
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )
