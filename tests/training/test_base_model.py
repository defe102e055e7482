"""Where a base model comes from, and every way in which it cannot be had."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from artefacts import save_foreign_model
from huggingface_hub import constants

from asclepius_ray.artifacts import Folder, is_finished
from asclepius_ray.config import parse_section
from asclepius_ray.errors import ConfigError
from asclepius_ray.progress import Progress
from asclepius_ray.tokens.config import TokensConfig
from asclepius_ray.training.base_model import prepare_base_model
from asclepius_ray.training.base_model_source import check_base_model
from asclepius_ray.training.config import TrainingConfig
from asclepius_ray.training.stage import ensure_base_model

NOBODY_LISTENS = "http://127.0.0.1:9"
HUB_ID = "nobody/no-such-model"


def settings(base_model: str) -> TrainingConfig:
    return parse_section(TrainingConfig, {"base_model": base_model}, "the test")


@pytest.mark.parametrize("name", ["./no/such/folder", "/no/such/folder", "a/b/c", "two words"])
def test_a_name_that_is_nothing_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="no folder") as failed:
        check_base_model(name)
    assert repr(name) in str(failed.value)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    for name in (str(tmp_path), f"file://{tmp_path}"):
        with pytest.raises(ConfigError, match=r"holds no config\.json") as failed:
            check_base_model(name)
        assert name in str(failed.value)


def test_a_hub_id_on_a_machine_without_network_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", NOBODY_LISTENS)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match="is not in the cache") as failed:
        check_base_model(HUB_ID)
    assert HUB_ID in str(failed.value)


def test_tiny_needs_nothing() -> None:
    check_base_model("tiny")


def test_a_folder_that_is_no_language_model_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "source"
    save_foreign_model(source)
    (source / "config.json").write_text('{"model_type": "no-such-kind"}')
    with pytest.raises(ConfigError, match="causal language model") as failed:
        prepare_base_model(Folder(str(tmp_path)), settings(str(source)), 128, 0, "")
    assert str(source) in str(failed.value)
    assert "\n" not in str(failed.value)


def test_a_sequence_longer_than_the_model_reads_is_refused(tmp_path: Path) -> None:
    save_foreign_model(tmp_path / "source", positions=64)
    with pytest.raises(ConfigError, match="sequence_length 128 is longer than the 64 positions"):
        prepare_base_model(Folder(str(tmp_path)), settings(str(tmp_path / "source")), 128, 0, "")
    prepare_base_model(Folder(str(tmp_path)), settings(str(tmp_path / "source")), 64, 0, "")


class Hub(http.server.BaseHTTPRequestHandler):
    """A hub that lets nobody in, and notes with which key they came."""

    seen: list[str]

    def do_HEAD(self) -> None:
        self.seen.append(self.headers.get("Authorization", ""))
        self.send_response(403)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Says nothing."""


@pytest.fixture
def closed_hub() -> Iterator[tuple[str, list[str]]]:
    Hub.seen = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", Hub.seen
    server.shutdown()
    server.server_close()


def test_the_hub_token_reaches_the_worker_and_no_message(
    ray_cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed_hub: tuple[str, list[str]]
) -> None:
    address, seen = closed_hub
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setenv("HF_TOKEN", "a-secret-of-the-test")
    root = Folder(str(tmp_path))
    with pytest.raises(ConfigError, match=r"HTTP 403.*HF_TOKEN given has no access") as failed:
        ensure_base_model(root, TokensConfig(), settings(HUB_ID), 0, Progress())
    assert seen == ["Bearer a-secret-of-the-test"]
    assert "a-secret-of-the-test" not in str(failed.value)
    assert "\n" not in str(failed.value)
    assert not is_finished(root.child("base_model"))


def test_a_hub_id_in_the_cache_is_used_without_network(
    ray_cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = tmp_path / "home" / "hub" / "models--nobody--no-such-model"
    save_foreign_model(stored / "snapshots" / "abc")
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text("abc")
    monkeypatch.setenv("HF_ENDPOINT", NOBODY_LISTENS)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    root = Folder(str(tmp_path / "root"))
    manifest = ensure_base_model(root, TokensConfig(sequence_length=128), settings(HUB_ID), 0, Progress())
    assert manifest.details["base_model"] == HUB_ID
    assert {"model.safetensors", "tokenizer.json", "chat_template.jinja"} <= set(manifest.files)
