"""Which stage `--only failed` makes anew: none where it was stopped halfway; at the end it is refused."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from asclepius_ray.artifacts import Folder, write_manifest
from asclepius_ray.errors import ConfigError
from asclepius_ray.fingerprints import EVALUATE, STAGES, SYNTHESIZE, TRAIN, Stage
from asclepius_ray.pipeline import _redo_for_failed
from asclepius_ray.run import Run, load_run

QUICKSTART = Path(__file__).resolve().parents[1] / "jobs" / "runs" / "quickstart.toml"


def run_with(root: Path, finished: Iterable[Stage], failed: dict[str, int]) -> Run:
    for stage in finished:
        folder = Folder(str(root)).child(stage.artifacts[-1])
        folder.make()
        write_manifest(folder, stage.artifacts[-1], {"failed": failed}, {})
    return load_run(str(QUICKSTART), [f"root={root}"])


@pytest.mark.parametrize(
    ("finished", "failed", "redone"),
    [
        ((), {}, ""),
        (STAGES, {"bad_request": 2}, "synthesize"),
        ((SYNTHESIZE,), {"bad_request": 2}, "synthesize"),
        ((SYNTHESIZE,), {}, ""),
        ((SYNTHESIZE, TRAIN), {}, ""),
    ],
)
def test_only_failed_makes_anew_where_rows_failed_and_else_goes_on(
    tmp_path: Path, finished: tuple[Stage, ...], failed: dict[str, int], redone: str
) -> None:
    assert _redo_for_failed(run_with(tmp_path, finished, failed), STAGES, "") == redone


@pytest.mark.parametrize(("finished", "stages"), [(STAGES, STAGES), ((SYNTHESIZE,), (SYNTHESIZE,))])
def test_only_failed_is_refused_where_none_failed_and_nothing_is_left(
    tmp_path: Path, finished: tuple[Stage, ...], stages: tuple[Stage, ...]
) -> None:
    with pytest.raises(ConfigError, match="has failed"):
        _redo_for_failed(run_with(tmp_path, finished, {}), stages, "")


def test_only_failed_is_for_jobs_that_ask_the_teacher(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="synthesize and pipeline"):
        _redo_for_failed(run_with(tmp_path, (), {}), (EVALUATE,), "")
