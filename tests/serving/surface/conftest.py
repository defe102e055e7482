"""One surface with two tiny models, for all tests of this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from served_models import save_tiny_model
from surfaces import Surface, open_surface, serve_model


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("served") / "trained", seed=1)


@pytest.fixture(scope="session")
def surface(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Surface]:
    other = save_tiny_model(tmp_path_factory.mktemp("served") / "untrained", seed=2)
    models = {"trained": serve_model("trained", folder), "untrained": serve_model("untrained", other)}
    with open_surface(models) as opened:
        yield opened
    for model in models.values():
        model.engine.stop()
