"""What Ray Train's controller does when workers fail, or when there could be more of them.

Ray's own policies try every error again, and resize without a word to the workers.
"""

import ray
from ray.actor import ActorHandle
from ray.train import FailureConfig
from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError
from ray.train.v2._internal.execution.failure_handling import DefaultFailurePolicy, FailureDecision
from ray.train.v2._internal.execution.scaling_policy import (
    ElasticScalingPolicy,
    NoopDecision,
    ResizeDecision,
    ScalingDecision,
)
from ray.train.v2._internal.execution.worker_group import WorkerGroupPollStatus, WorkerGroupState
from ray.train.v2.api.config import ScalingConfig
from ray.train.v2.api.exceptions import PreemptionError, TrainingFailedError, WorkerGroupError

from asclepius_ray.artifacts import Folder
from asclepius_ray.training.checkpoints.catalog import committed_steps
from asclepius_ray.training.failures import RegroupRequest, error_of_ours, errors_within


class RecoveryPolicy(DefaultFailurePolicy):  # type: ignore[misc]  # ray has no types
    """Goes on from the newest checkpoint, unless the error would come again.

    `max_failures` counts failures in a row between which no checkpoint was finished: a run of weeks
    survives as many as it meets, one that cannot get on ends soon.
    """

    def __init__(self, max_failures: int, training: Folder, board: ActorHandle) -> None:
        super().__init__(FailureConfig(max_failures=max_failures))
        self._training = training
        self._board = board
        self._newest_step = -1

    def make_decision(self, training_failed_error: TrainingFailedError) -> FailureDecision:
        errors = errors_within(training_failed_error)
        if error_of_ours(errors) is not None:
            return FailureDecision.RAISE
        newest = max(committed_steps(self._training), default=0)
        if newest > self._newest_step:
            self._newest_step = newest
            self._worker_group_failures = 0
        if any(isinstance(error, RegroupRequest) for error in errors):
            self._say(f"the workers are started anew; training goes on from step {newest}")
            return FailureDecision.RETRY
        if any(isinstance(error, WorkerGroupStartupFailedError) for error in errors):
            # Ray would try this one for ever.
            self._worker_group_failures += 1
            too_many = self._worker_group_failures > self.failure_config.max_failures
            return FailureDecision.RAISE if too_many else FailureDecision.RETRY
        decision = super().make_decision(training_failed_error)
        if decision is FailureDecision.RETRY and isinstance(training_failed_error, PreemptionError):
            self._say(f"a node is gone, as it had been announced; training goes on from step {newest}")
        elif decision is FailureDecision.RETRY and isinstance(training_failed_error, WorkerGroupError):
            self._say(
                f"workers were lost ({type(errors[-1]).__name__}); training goes on from step {newest} "
                f"(failure {self._worker_group_failures} of {self.failure_config.max_failures} in a row)"
            )
        return decision

    def _say(self, text: str) -> None:
        self._board.push.remote({"event": "say", "text": text})


class ElasticPolicy(ElasticScalingPolicy):  # type: ignore[misc]  # ray has no types
    """Has the workers save before they are started anew in another number, so that no step is repeated."""

    def __init__(self, scaling_config: ScalingConfig, board: ActorHandle) -> None:
        super().__init__(scaling_config)
        self._board = board

    def make_decision_for_running_worker_group(
        self, worker_group_state: WorkerGroupState, worker_group_status: WorkerGroupPollStatus
    ) -> ScalingDecision:
        decision = super().make_decision_for_running_worker_group(worker_group_state, worker_group_status)
        # Fewer become of it by themselves, when a node is gone or about to go.
        if isinstance(decision, ResizeDecision) and decision.num_workers > worker_group_state.num_workers:
            # They end with a RegroupRequest, and the next group takes all that is there.
            self._board.regroup.remote()
        return NoopDecision()

    def _count_possible_workers(self, reserved_resources: dict[str, dict[str, float]]) -> int:
        # Ray reserves for up to 20 s on nodes that are gone, and on drained ones, where nothing starts.
        staying = staying_nodes()
        there = {node: resources for node, resources in reserved_resources.items() if node in staying}
        count: int = super()._count_possible_workers(there)
        return count


def staying_nodes() -> set[str]:
    """The ids of the nodes that are alive and that nobody drains."""
    alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    return alive - set(ray._private.state.state.get_draining_nodes())
