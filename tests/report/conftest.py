"""A root of its own for each page."""

from pathlib import Path

import pytest

from asclepius_ray.artifacts import Folder


@pytest.fixture
def root(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path))
