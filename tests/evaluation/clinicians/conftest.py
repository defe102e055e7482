"""An invented evaluation, one of three real models' answers to real notes, and a browser."""

from pathlib import Path

import pytest
from camel_study import CAMEL, write_camel
from chromium import browser as browser
from invented_study import write_study

from asclepius_ray.artifacts import Folder


@pytest.fixture
def study(tmp_path: Path) -> Folder:
    root = Folder(str(tmp_path / "run"))
    write_study(root)
    return root


@pytest.fixture
def camel(tmp_path: Path) -> Folder:
    if not CAMEL.is_file():
        pytest.skip(f"the real answers of {CAMEL.name} are not beside the project")
    root = Folder(str(tmp_path / "camel"))
    write_camel(root)
    return root
