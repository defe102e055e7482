"""A small project whose jobs end at once, and clusters with token authentication off and on."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from local_heads import Head, Said, started_head

JOB_PAGE = """
import os, sys, time, tomllib
from pathlib import Path

import asclepius_ray

run = tomllib.loads(Path(sys.argv[1]).read_text())
print("name", run["name"])
print("arguments", " ".join(sys.argv[2:]))
print("code from", Path(asclepius_ray.__file__).resolve().parent.parent == Path.cwd())
print("stop time", os.environ.get("RAY_JOB_STOP_WAIT_TIME_S"))
for number in range(int(run["name"].partition("-lines-")[2] or 0)):
    print("line", number, flush=True)
    time.sleep(0.1)
if run["name"] == "sleeps":
    print("sleeping", flush=True)
    time.sleep(300)
sys.exit(7 if run["name"].startswith("fails") else 0)
"""


@pytest.fixture
def said() -> Said:
    return Said()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project's tree with one job page, which ends as the run's name says."""
    folder = tmp_path / "project"
    (folder / "asclepius_ray").mkdir(parents=True)
    (folder / "jobs").mkdir()
    (folder / "pyproject.toml").write_text("[project]\nname = 'asclepius-ray'\n")
    (folder / "constraints.txt").write_text("ray==2.60.0\n")
    (folder / "asclepius_ray" / "__init__.py").write_text("")
    for job in ("pipeline", "train"):
        (folder / "jobs" / f"{job}.py").write_text(JOB_PAGE)
    return folder


@pytest.fixture
def write_run(tmp_path: Path) -> Callable[..., str]:
    """Writes a run file and returns its path."""

    def write(name: str = "small", root: str = "s3://bucket/run", more: str = "") -> str:
        path = tmp_path / f"{name}.toml"
        path.write_text(f'name = "{name}"\nroot = "{root}"\n{more}\n[teacher]\nbase_url = "offline"\n')
        return str(path)

    return write


@pytest.fixture(scope="module")
def open_head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """One node, token authentication off."""
    with started_head({"RAY_AUTH_MODE": "disabled"}, tmp_path_factory.mktemp("open"), num_workers=0) as head:
        yield head


@pytest.fixture(scope="module")
def guarded_head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """Two nodes, token authentication on."""
    guarded = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a-token-made-for-this-test"}
    with started_head(guarded, tmp_path_factory.mktemp("guarded"), num_workers=1) as head:
        yield head
