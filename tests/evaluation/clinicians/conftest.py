"""An invented evaluation, one of three real models' answers to real notes, and a browser."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from camel_study import CAMEL, write_camel
from invented_study import write_study
from playwright.sync_api import Browser, sync_playwright

from asclepius_ray.artifacts import Folder

CHROMIUM_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


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


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no Chromium here (apt-get install chromium)")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGUMENTS)
        yield started
        started.close()
