"""Opening and closing endpoints, and every model that cannot be served."""

import io
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import openai
import pytest
import ray
from moto.server import ThreadedMotoServer
from ray import serve
from ray.serve.context import _get_global_client
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console
from served_models import API_KEY, save_tiny_model

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import ConfigError, Interrupted, ServingError
from asclepius_ray.progress import Progress
from asclepius_ray.serving.application import build_application
from asclepius_ray.serving.application_settings import ApplicationSettings
from asclepius_ray.serving.config import ServingConfig
from asclepius_ray.serving.model_source import fetch_model, locate_model
from asclepius_ray.serving.stage import (
    _application_name,
    _deploy,
    _gpu_share,
    _route_prefixes,
    open_models,
    serve_until_stopped,
)

pytestmark = pytest.mark.whole

CONFIG = ServingConfig(port=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model") / "one", seed=3)


@pytest.fixture(scope="module")
def base_url(ray_cluster: str, folder: Path) -> Iterator[str]:
    """One model that is served alone; behind the last test Serve itself must be gone."""
    with Progress() as progress, open_models({"one": str(folder)}, CONFIG, API_KEY, progress) as base_urls:
        yield base_urls["one"]
    assert _get_global_client(raise_if_no_controller_running=False) is None


def served_names(url: str) -> list[str]:
    client = openai.OpenAI(base_url=url, api_key=API_KEY, max_retries=0)
    return [model.id for model in client.models.list()]


def open_one(model: str, api_key: str = API_KEY, config: ServingConfig = CONFIG) -> None:
    with open_models({"one": model}, config, api_key, Progress()):
        pytest.fail("it was served")


def open_on_another_node(model: str, config: ServingConfig) -> list[str]:
    """What open_models serves, or its error's words, where it runs on a node that is not the head."""
    [node] = [
        node for node in ray.nodes() if node["Alive"] and "node:__internal_head__" not in node["Resources"]
    ]

    @ray.remote(num_cpus=0)
    def ask() -> list[str]:
        # The workers cannot import this module: whatever stands here comes from elsewhere.
        try:
            with open_models({"one": model}, config, API_KEY, Progress()) as base_urls:
                client = openai.OpenAI(base_url=base_urls["one"], api_key=API_KEY, max_retries=0)
                return [found.id for found in client.models.list()]
        except (ConfigError, ServingError) as error:
            return [str(error)]

    there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    names: list[str] = ray.get(ask.options(scheduling_strategy=there).remote())
    return names


@pytest.mark.long
def test_a_driver_beside_the_head_node_reaches_what_it_serves_at_any_port(
    ray_cluster: str, folder: Path
) -> None:
    assert open_on_another_node(str(folder), ServingConfig(port=0)) == ["one"]
    [refusal] = open_on_another_node(str(folder), ServingConfig(port=8123))
    assert "head node alone" in refusal


def test_a_gpu_that_is_not_there_yet_is_waited_for(ray_cluster: str) -> None:
    said = io.StringIO()
    assert _gpu_share(2, Progress(Console(file=said, width=200))) == 1.0
    assert "waits for a GPU" in said.getvalue()


def test_a_single_model_stands_at_v1(base_url: str) -> None:
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/v1", base_url)
    assert served_names(base_url) == ["one"]


def test_serving_stays_until_a_signal_and_leaves_the_others_alone(base_url: str, folder: Path) -> None:
    said = io.StringIO()
    states: list[list[str]] = []
    # Port 0 is that of the Serve which runs already, whatever host it was given.
    any_address = ServingConfig(host="0.0.0.0", port=0)

    def stop_when_served() -> None:
        while not (found := re.search(r"two / 2 is served at (\S+)", said.getvalue())):
            time.sleep(0.1)
        states.append(served_names(found[1]))
        signal.raise_signal(signal.SIGUSR1)

    def interrupt(*_: object) -> None:
        raise Interrupted("stopped")

    earlier = signal.signal(signal.SIGUSR1, interrupt)
    threading.Thread(target=stop_when_served, daemon=True).start()
    try:
        with pytest.raises(Interrupted):
            serve_until_stopped(
                {"two / 2": str(folder)}, any_address, API_KEY, Progress(Console(file=said, width=200))
            )
    finally:
        signal.signal(signal.SIGUSR1, earlier)
    assert states == [["two / 2"]]
    assert "came without the prompt and tokenizer and weights" in said.getvalue()
    assert API_KEY not in said.getvalue()
    assert len(serve.status().applications) == 1
    assert served_names(base_url) == ["one"]


def test_two_runs_of_the_same_names_share_a_cluster(base_url: str) -> None:
    prefixes: list[str] = []
    for root in ("/runs/a", "/runs/b"):
        names = {name: _application_name(name, f"{root}/{name}") for name in ("trained", "untrained")}
        prefixes += _route_prefixes(names).values()
    assert len(set(prefixes)) == 4
    assert "/" not in prefixes


def test_what_serve_itself_refuses_is_one_sentence(base_url: str, folder: Path) -> None:
    settings = ApplicationSettings(name="late", model=str(folder), api_key_sha256="0")
    target = serve.RunTarget(build_application(settings), name="late", route_prefix="/")
    with pytest.raises(ServingError, match="Prefix / is being used") as refused:
        _deploy([target])
    assert "\n" not in str(refused.value)


def test_an_address_that_serve_does_not_listen_on_is_refused(base_url: str, folder: Path) -> None:
    taken = int(base_url.split(":")[2].split("/")[0])
    with pytest.raises(ServingError, match=f"{taken}.*not on .*{taken + 1}"):
        open_one(str(folder), config=ServingConfig(port=taken + 1))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("/no/such/folder", "no such folder"),
        ("runs/nothing/model", "no such folder"),
        ("file:///no/such/folder", "no config.json"),
        ("s3://bucket/model?endpoint_override=http://127.0.0.1:1", "cannot be reached"),
        ("no--such/model", "neither a folder here nor a Hugging Face model"),
        ("no-such-organisation/no-such-model", "neither a folder here nor a Hugging Face model"),
    ],
)
def test_a_model_that_is_not_there_is_refused_by_name_and_at_once(
    ray_cluster: str, model: str, reason: str
) -> None:
    started = time.monotonic()
    with pytest.raises(ServingError, match=reason) as refused:
        open_one(model)
    assert model in str(refused.value)
    assert time.monotonic() - started < 10


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="not a Hugging Face folder"):
        locate_model(str(tmp_path))


def test_a_model_in_a_bucket_is_fetched_once_and_again_when_it_changed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    server = ThreadedMotoServer(port=0)
    server.start()
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket="models")
        bucket = Folder(f"s3://models/one?region=us-east-1&endpoint_override={endpoint}")
        bucket.upload(folder)
        assert locate_model(bucket.uri) == bucket.uri
        first = Path(fetch_model(bucket.uri))
        assert {file.name for file in first.iterdir()} == {file.name for file in folder.iterdir()}
        made = first.stat().st_mtime_ns
        assert (Path(fetch_model(bucket.uri)), first.stat().st_mtime_ns) == (first, made)
        bucket.write_bytes("model.safetensors", b"other weights")
        second = Path(fetch_model(bucket.uri))
        assert (second / "model.safetensors").read_bytes() == b"other weights"
    finally:
        server.stop()


def test_without_a_key_nothing_is_served(ray_cluster: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ASCLEPIUS_API_KEY.*token_urlsafe"):
        open_one(str(tmp_path), api_key=" ")


def test_weights_that_cannot_be_read_end_the_start_with_their_reason(
    base_url: str, folder: Path, tmp_path: Path
) -> None:
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ServingError, match=r"one cannot be served: .*damaged cannot be loaded") as refused:
        open_one(str(damaged))
    assert "\n" not in str(refused.value)


def test_the_replicas_get_the_hash_of_the_key_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASCLEPIUS_API_KEY", API_KEY)
    settings = ApplicationSettings(name="one", model="somewhere")
    application = build_application(settings)
    assert API_KEY not in repr(vars(application._bound_deployment))
    monkeypatch.setenv("ASCLEPIUS_API_KEY", "")
    with pytest.raises(ConfigError):
        build_application(settings)
