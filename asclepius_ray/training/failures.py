"""What Ray wraps around an error → the one sentence that the user needs, and whether a new try may help."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError
from ray.train import ControllerError, WorkerGroupError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from asclepius_ray.errors import AsclepiusError, TrainingError

LESS_MEMORY = (
    "lower training.micro_batch, raise training.zero_stage on several workers, or set "
    "training.gradient_checkpointing = true"
)
# torch raises a RuntimeError for want of the computer's own memory.
_NO_MEMORY = "can't allocate memory"


class RegroupRequest(Exception):
    """No error: the state is saved, and Ray Train is to start the workers anew."""


@contextmanager
def memory_errors_named() -> Iterator[None]:
    """Turns a worker's want of memory into a TrainingError that names the settings which need less."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and _NO_MEMORY not in str(error):
            raise
        lines = str(error).strip().splitlines() or ["no message"]
        raise TrainingError(f"a worker has not enough memory ({lines[0][:200]}); {LESS_MEMORY}") from error


def errors_within(error: BaseException) -> list[BaseException]:
    """The error and what is inside of it, outermost first, through all failed workers."""
    return list(_unwrapped(error))


def error_of_ours(errors: list[BaseException]) -> AsclepiusError | None:
    """The error among them that is meant for the user: to try again would meet it again."""
    for error in errors:
        if isinstance(error, AsclepiusError) and not isinstance(error, RayTaskError):
            return error
    return None


def original_error(error: BaseException) -> AsclepiusError:
    """The error of ours inside `error`, else a TrainingError with its innermost cause."""
    chain = errors_within(error)
    if (own := error_of_ours(chain)) is not None:
        return own
    if any(isinstance(found, RayActorError | OutOfMemoryError) for found in chain):
        return TrainingError(
            "the training's workers were lost again and again, most often for want of memory: "
            f"{LESS_MEMORY}; the same command goes on from the newest checkpoint"
        )
    cause = chain[-1]
    lines = str(cause).strip().splitlines() or ["no message"]
    return TrainingError(
        f"the training failed with {type(cause).__name__}: {lines[0][:300]}; "
        "the same command goes on from the newest checkpoint"
    )


def _unwrapped(error: BaseException) -> Iterator[BaseException]:
    yield error
    if isinstance(error, WorkerGroupError):
        # The last one counts: a rank that lost its peers only tells that another one failed.
        failures = sorted(error.worker_failures.values(), key=lambda failure: not _is_consequence(failure))
        for failure in failures:
            yield from _unwrapped(failure)
    elif isinstance(error, ControllerError):
        yield from _unwrapped(error.controller_failure)
    elif isinstance(error, WorkerHealthCheckFailedError):
        yield from _unwrapped(error.health_check_failure)
    else:
        core = _core(error)
        if core is not error:
            yield from _unwrapped(core)


def _is_consequence(failure: BaseException) -> bool:
    message = str(_core(failure))
    return any(sign in message for sign in ("Connection closed by peer", "Connection reset by peer", "NCCL"))


def _core(error: BaseException) -> BaseException:
    # Ray keeps the original in one of these, depending on how far the error has travelled.
    for name in ("_base_exc", "cause"):
        inner = getattr(error, name, None)
        if isinstance(inner, BaseException):
            return inner
    return error
