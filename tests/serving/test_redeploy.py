"""A public model that is deployed in the place of an earlier one, over a Serve that runs already."""

import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest
from ray import serve
from ray.serve.context import _get_global_client
from served_models import API_KEY, save_tiny_model

from asclepius_ray.errors import AsclepiusError, ServingError
from asclepius_ray.progress import Progress
from asclepius_ray.serving.config import ServingConfig
from asclepius_ray.serving.proxy.environment import free_port
from asclepius_ray.serving.serve_record import recorded_start
from asclepius_ray.serving.serve_start import differences
from asclepius_ray.serving.stage import open_models

pytestmark = pytest.mark.long

NAME = "one"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model") / "one", seed=3)


@pytest.fixture(scope="module")
def config() -> ServingConfig:
    return ServingConfig(port=free_port("127.0.0.1"), drain_seconds=20)


def opened(folder: Path, config: ServingConfig) -> AbstractContextManager[dict[str, str]]:
    return open_models({NAME: str(folder)}, config, API_KEY, Progress(), is_public=True)


def answers(base_url: str) -> bool:
    headers = {"Authorization": f"Bearer {API_KEY}"}
    return httpx.get(f"{base_url}/models", headers=headers, timeout=30).status_code == 200


@pytest.fixture
def base_url(ray_cluster: str, folder: Path, config: ServingConfig) -> Iterator[str]:
    """Served behind HAProxy; it is gone afterwards, and HAProxy's folder with it."""
    with opened(folder, config) as base_urls:
        proxy_folder = Path(recorded_start().proxy_folder)
        assert (proxy_folder / "haproxy").exists()
        yield base_urls[NAME]
    assert _get_global_client(raise_if_no_controller_running=False) is None, "the first run's model stays"
    assert not proxy_folder.exists()


def test_a_redeploy_that_fails_leaves_the_earlier_model_to_answer_and_to_its_run(
    base_url: str, folder: Path, config: ServingConfig, tmp_path: Path
) -> None:
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ServingError, match="cannot be loaded"), opened(damaged, config):
        pytest.fail("it was served")
    assert answers(base_url)
    same_names = config.model_copy(update={"models": {NAME: str(folder)}})
    with pytest.raises(AsclepiusError), opened(folder, same_names):
        pytest.fail("it was served")
    assert answers(base_url)


def test_an_application_keeps_its_address_whoever_has_come_meanwhile(
    base_url: str, folder: Path, config: ServingConfig
) -> None:
    with open_models({"other": str(folder)}, ServingConfig(port=0), API_KEY, Progress()) as others:
        assert others["other"] != base_url
        again = config.model_copy(update={"max_new_tokens": config.max_new_tokens + 1})
        with opened(folder, again) as base_urls:
            assert base_urls == {NAME: base_url}
            assert answers(base_url)
        # It was the later run's, and went with it; the other run's model keeps Serve alive.
        assert [name.split("-")[0] for name in serve.status().applications] == ["other"]


def test_what_a_running_serve_does_otherwise_is_refused_or_said(
    base_url: str, folder: Path, config: ServingConfig
) -> None:
    assert differences(config) == []
    assert differences(config.model_copy(update={"drain_seconds": 10.0})) == []
    [said] = differences(config.model_copy(update={"drain_seconds": 90.0}))
    assert "serving.drain_seconds = 20; 90 is more" in said
    tls = ServingConfig(port=0, tls_certificate="/pki/new.pem", tls_key="/pki/new.key")
    refusal = r"with no TLS, not with /pki/new\.pem and /pki/new\.key"
    with pytest.raises(ServingError, match=refusal), opened(folder, tls):
        pytest.fail("it was served")
