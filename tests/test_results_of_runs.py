"""What a run leaves in its lease is what it ends with, and whoever follows it ends with the same."""

import threading
from contextlib import suppress
from pathlib import Path

import pytest

from asclepius_ray import pipeline
from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import BudgetError, EndpointError, InputError, LeaseError, StageChangedError
from asclepius_ray.lease import read_holder
from asclepius_ray.progress import Progress
from asclepius_ray.ray_session import JOB_VARIABLE
from asclepius_ray.run import Run, load_run

QUICKSTART = Path(__file__).resolve().parents[1] / "jobs" / "runs" / "quickstart.toml"


def run_at(root: Path, *changes: str) -> Run:
    return load_run(str(QUICKSTART), [f"root={root}", *changes])


def left_in(root: Path) -> int | None:
    holder = read_holder(Folder(str(root)))
    assert holder is not None
    return holder.exit_code


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (BudgetError("reached"), 6),
        (EndpointError("refused"), 5),
        (StageChangedError("changed"), 3),
        (KeyboardInterrupt("SIGTERM"), 130),
        (SystemExit(7), 7),
        (SystemExit(), 0),
        (SystemExit("words"), 1),
        (RuntimeError("a defect"), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_the_lease_keeps_the_code_that_the_command_ends_with(
    tmp_path: Path, end: BaseException, expected: int
) -> None:
    with pytest.raises(type(end)), pipeline._holding(run_at(tmp_path), "train:1", Progress()):
        raise end
    assert left_in(tmp_path) == expected


def test_a_job_that_cannot_begin_leaves_its_code_too(tmp_path: Path) -> None:
    run = run_at(tmp_path, f"input.path={tmp_path}/absent.csv")
    with pytest.raises(InputError):
        pipeline.run_job("synthesize", run, "", Progress())
    assert left_in(tmp_path) == InputError.exit_code


def hold_until(run: Run, purpose: str, held: threading.Event, may_end: threading.Event) -> None:
    with suppress(BudgetError), pipeline._holding(run, purpose, Progress()):
        held.set()
        may_end.wait(30)
        raise BudgetError("reached")


def test_a_twin_follows_to_the_same_code_and_one_that_is_to_make_a_stage_anew_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, held, may_end = run_at(tmp_path), threading.Event(), threading.Event()
    purpose = pipeline._purpose(run, "pipeline")
    first = threading.Thread(target=hold_until, args=(run, purpose, held, may_end))
    first.start()
    try:
        assert held.wait(30)
        monkeypatch.setenv(JOB_VARIABLE, "{}")
        with pytest.raises(LeaseError, match="is in use by"):
            pipeline.run_job("pipeline", run, "train", Progress())
        with pytest.raises(LeaseError, match="is in use by"):
            pipeline.run_job("pipeline", run, "", Progress(), only_failed=True)
        threading.Timer(0.5, may_end.set).start()
        with pytest.raises(SystemExit) as followed:
            pipeline.run_job("pipeline", run, "", Progress())
    finally:
        may_end.set()
        first.join(30)
    assert followed.value.code == BudgetError.exit_code
