"""What Ray wraps around an error → the one sentence that the user needs."""

from collections.abc import Iterator

from ray.exceptions import RayTaskError
from ray.train import ControllerError, WorkerGroupError

from asclepius_ray.errors import AsclepiusError, TrainingError


def original_error(error: BaseException) -> AsclepiusError:
    """The error of ours inside `error`, else a TrainingError with its innermost cause."""
    chain = list(_unwrapped(error))
    for found in chain:
        if isinstance(found, AsclepiusError) and not isinstance(found, RayTaskError):
            return found
    cause = chain[-1]
    lines = str(cause).strip().splitlines() or ["no message"]
    return TrainingError(
        f"the training failed with {type(cause).__name__}: {lines[0][:300]}; "
        "the same command goes on from the newest checkpoint"
    )


def _unwrapped(error: BaseException) -> Iterator[BaseException]:
    """The error and what is inside of it, outermost first, through all failed workers."""
    yield error
    if isinstance(error, WorkerGroupError):
        # The last one counts: a rank that lost its peers only tells that another one failed.
        failures = sorted(error.worker_failures.values(), key=lambda failure: not _is_consequence(failure))
        for failure in failures:
            yield from _unwrapped(failure)
    elif isinstance(error, ControllerError):
        yield from _unwrapped(error.controller_failure)
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
