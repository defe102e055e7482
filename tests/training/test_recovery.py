"""Which failures are worth another try, and what the user is told of those that are not."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import torch
from ray.actor import ActorHandle
from ray.exceptions import ActorDiedError
from ray.train import ControllerError, WorkerGroupError
from ray.train.v2._internal.exceptions import (
    UserExceptionWithTraceback,
    WorkerGroupStartupFailedError,
    WorkerGroupStartupTimeoutError,
    WorkerHealthCheckFailedError,
)
from ray.train.v2._internal.execution.failure_handling import FailureDecision

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import ConfigError, TrainingError
from asclepius_ray.training.checkpoints.catalog import COMMIT_NAME, step_folder
from asclepius_ray.training.failures import RegroupRequest, memory_errors_named, original_error
from asclepius_ray.training.fitting import start_board
from asclepius_ray.training.recovery import RecoveryPolicy

RETRY, RAISE = FailureDecision.RETRY, FailureDecision.RAISE


def workers_failed(*errors: Exception) -> WorkerGroupError:
    return WorkerGroupError("several lines\nof text", dict(enumerate(errors)))


def raised(error: Exception) -> UserExceptionWithTraceback:
    """An error as it comes from a worker's own code."""
    return UserExceptionWithTraceback(error, "a\ntraceback")


def killed() -> WorkerHealthCheckFailedError:
    """What Ray Train makes of a worker that is gone."""
    return WorkerHealthCheckFailedError("A worker health check failed.", ActorDiedError())


@pytest.fixture
def board(ray_cluster: str) -> Iterator[ActorHandle]:
    board = start_board()
    yield board
    ray.kill(board)


@pytest.fixture
def training(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path))


def commit(training: Folder, step: int) -> None:
    step_folder(training, step).write_bytes(COMMIT_NAME, b"{}")


def test_lost_workers_are_replaced_as_often_as_allowed_without_a_new_checkpoint(
    board: ActorHandle, training: Folder
) -> None:
    policy = RecoveryPolicy(2, training, board)
    lost = RuntimeError("Connection closed by peer [127.0.0.1]:1")
    assert [policy.make_decision(workers_failed(killed(), raised(lost))) for _ in range(3)] == [
        RETRY,
        RETRY,
        RAISE,
    ]
    said = [event["text"] for event in ray.get(board.drain.remote())]
    assert ["from step 0" in text for text in said] == [True, True]
    assert "failure 2 of 2" in said[-1]


def test_a_new_checkpoint_makes_earlier_failures_forgotten(board: ActorHandle, training: Folder) -> None:
    policy = RecoveryPolicy(1, training, board)
    for step in (10, 20, 30):
        commit(training, step)
        assert policy.make_decision(workers_failed(killed())) is RETRY
    assert policy.make_decision(workers_failed(killed())) is RAISE


def test_an_error_that_would_come_again_ends_the_training_at_once(
    board: ActorHandle, training: Folder
) -> None:
    policy = RecoveryPolicy(5, training, board)
    for error in (TrainingError("the loss is nan"), ConfigError("no such model")):
        assert policy.make_decision(workers_failed(killed(), raised(error))) is RAISE
        assert policy.make_decision(workers_failed(raised(error), killed())) is RAISE
    assert policy.make_decision(workers_failed(raised(ValueError("who knows")))) is RETRY


def test_workers_that_leave_by_agreement_count_as_no_failure(board: ActorHandle, training: Folder) -> None:
    policy = RecoveryPolicy(0, training, board)
    request = raised(RegroupRequest("started anew"))
    assert {policy.make_decision(workers_failed(request, request)) for _ in range(5)} == {RETRY}
    assert policy.make_decision(workers_failed(killed())) is RAISE


def test_a_place_is_waited_for_without_end_but_workers_that_cannot_start_are_not(
    board: ActorHandle, training: Folder
) -> None:
    policy = RecoveryPolicy(2, training, board)
    waits = ControllerError(WorkerGroupStartupTimeoutError(2))
    assert {policy.make_decision(waits) for _ in range(9)} == {RETRY}
    fails = ControllerError(WorkerGroupStartupFailedError("no module named x"))
    assert [policy.make_decision(fails) for _ in range(3)] == [RETRY, RETRY, RAISE]


@pytest.mark.parametrize("size", [1 << 45, 1 << 50])
def test_a_want_of_memory_names_the_settings_that_need_less(size: int) -> None:
    with pytest.raises(TrainingError) as failed, memory_errors_named():
        torch.empty(size, dtype=torch.uint8)
    for name in ("micro_batch", "zero_stage", "gradient_checkpointing"):
        assert f"training.{name}" in str(failed.value)
    assert "\n" not in str(failed.value)


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")]
)
def test_each_kind_of_want_of_memory_is_one_error_to_the_user(error: Exception) -> None:
    with (
        pytest.raises(TrainingError, match=r"has not enough memory.*training\.micro_batch"),
        memory_errors_named(),
    ):
        raise error


def test_other_errors_are_not_taken_for_a_want_of_memory() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), memory_errors_named():
        torch.ones(2, 3) @ torch.ones(2, 3)


def test_workers_that_were_lost_for_good_are_told_with_what_may_help() -> None:
    message = str(original_error(workers_failed(killed(), killed())))
    assert "lost again and again" in message
    assert "training.micro_batch" in message
    assert "goes on from the newest checkpoint" in message
