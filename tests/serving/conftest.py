"""Two tiny models served on a real cluster, once for a module of tests that ask them over HTTP."""

from collections.abc import Iterator

import pytest
from served_models import API_KEY, ENGINE, MAX_CONCURRENT_REQUESTS, MAX_NEW_TOKENS, Served, save_tiny_model

from asclepius_ray.progress import Progress
from asclepius_ray.serving.config import ServingConfig
from asclepius_ray.serving.stage import open_models


@pytest.fixture(scope="module")
def served(ray_cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("models")
    folders = {
        "trained": save_tiny_model(root / "trained", seed=1),
        "untrained": save_tiny_model(root / "untrained", seed=2),
    }
    config = ServingConfig(
        engine=ENGINE,
        cache_gib=0.25,
        port=0,
        max_concurrent_requests=MAX_CONCURRENT_REQUESTS,
        max_new_tokens=MAX_NEW_TOKENS,
    )
    models = {name: str(folder) for name, folder in folders.items()}
    with Progress() as progress, open_models(models, config, API_KEY, progress) as base_urls:
        yield Served(folders, base_urls)
