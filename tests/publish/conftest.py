"""A run that is finished, a hub to publish it to, and the command as a user says it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from finished_run import write_run
from hub_server import Hub


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder of a run with a dataset and a model."""
    write_run(tmp_path / "root")
    return tmp_path / "root"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as hub:
        yield hub
