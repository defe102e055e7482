"""Where a base model comes from, and every way in which it cannot be had."""

import http.server
import json
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
import torch
from artefacts import save_foreign_model
from huggingface_hub import constants
from moto.server import ThreadedMotoServer
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from asclepius_ray.artifacts import Folder, is_finished, read_sums, write_manifest
from asclepius_ray.config import parse_section
from asclepius_ray.errors import ConfigError
from asclepius_ray.progress import Progress
from asclepius_ray.tokens.config import TokensConfig
from asclepius_ray.training.base_model import prepare_base_model
from asclepius_ray.training.base_model_origin import ORIGINS
from asclepius_ray.training.base_model_source import base_model_identity, check_base_model
from asclepius_ray.training.config import TrainingConfig
from asclepius_ray.training.prepared import ensure_artifact
from asclepius_ray.training.stage import ensure_base_model

pytestmark = pytest.mark.whole

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
    assert check_base_model("tiny") is None


def test_a_folder_with_another_model_in_it_has_another_identity(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"1234")
    found = [base_model_identity(str(tmp_path))]
    assert base_model_identity(f"file://{tmp_path}") == found[0]
    (tmp_path / "model.safetensors").write_bytes(b"12345")
    found.append(base_model_identity(str(tmp_path)))
    (tmp_path / "config.json").write_text("{ }")
    found.append(base_model_identity(str(tmp_path)))
    assert len(set(found)) == 3
    assert all(found)
    assert base_model_identity("tiny") == base_model_identity(HUB_ID) == ""


def test_a_base_model_changed_under_its_name_is_prepared_anew(ray_cluster: str, tmp_path: Path) -> None:
    source, root, tokens = tmp_path / "source", Folder(str(tmp_path)), TokensConfig(sequence_length=64)
    parameters = []
    for positions in (64, 64, 128):
        save_foreign_model(source, positions=positions)
        manifest = ensure_base_model(root, tokens, settings(str(source)), 0, Progress())
        parameters.append(manifest.identity)
    assert parameters[0] == parameters[1] != parameters[2]


def test_an_artefact_in_a_bucket_with_options_is_known_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    server = ThreadedMotoServer(port=0)
    server.start()
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket="runs")
        root = Folder(f"s3://runs/one?region=us-east-1&endpoint_override={endpoint}")
        assert ensure_artifact(root, "tokens", {}, lambda: ({}, {}), Progress()).artifact == "tokens"
    finally:
        server.stop()


def test_a_folder_that_is_no_language_model_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "source"
    save_foreign_model(source)
    (source / "config.json").write_text('{"model_type": "no-such-kind"}')
    with pytest.raises(ConfigError, match="causal language model") as failed:
        prepare_base_model(Folder(str(tmp_path)), settings(str(source)), 128, 0, "")
    assert str(source) in str(failed.value)
    assert "\n" not in str(failed.value)


def test_a_template_that_writes_the_date_is_refused_with_the_file_to_change(tmp_path: Path) -> None:
    source = tmp_path / "source"
    save_foreign_model(source)
    template = source / "chat_template.jinja"
    template.write_text("{{ strftime_now('%d %b %Y') }}" + template.read_text())
    with pytest.raises(ConfigError, match=r"strftime_now.*chat_template\.jinja"):
        prepare_base_model(Folder(str(tmp_path)), settings(str(source)), 128, 0, "")


@pytest.mark.parametrize("name", ["models/llama", "~/models/llama"])
def test_a_folder_is_the_one_that_the_run_file_meant_wherever_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    save_foreign_model(tmp_path / "models" / "llama")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    training = settings(name)
    # As a worker has them: there lies another model under this name, which may be the hub's too.
    for folder in ("elsewhere", "empty"):
        (tmp_path / folder).mkdir()
    save_foreign_model(tmp_path / "elsewhere" / "models" / "llama", positions=64)
    for folder in ("elsewhere", "empty"):
        monkeypatch.chdir(tmp_path / folder)
        monkeypatch.setenv("HOME", str(tmp_path / folder))
        root = Folder(str(tmp_path / folder / "root"))
        moved = pickle.loads(pickle.dumps(training))
        details = prepare_base_model(root, moved, 128, 0, "")
        assert details["base_model"] == "llama"
        assert moved.fingerprint() == settings(name).fingerprint()


def test_a_folder_that_the_loading_machine_lacks_is_never_sought_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_foreign_model(tmp_path / "models" / "llama")
    monkeypatch.chdir(tmp_path)
    training = settings("models/llama")
    (tmp_path / "models").rename(tmp_path / "gone")
    with pytest.raises(ConfigError, match="no folder on the machine that loads it"):
        prepare_base_model(Folder(str(tmp_path / "root")), training, 128, 0, "")


def test_a_hub_id_is_no_folder_that_a_worker_happens_to_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = settings("models/llama")
    save_foreign_model(tmp_path / "models" / "llama")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "ENDPOINT", NOBODY_LISTENS)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ConfigError, match="is not in the cache"):
        prepare_base_model(Folder(str(tmp_path / "root")), training, 128, 0, "")


@pytest.mark.parametrize("artifact", ["model", "base_model"])
def test_whose_texts_a_base_model_of_ours_has_learnt_is_told_on(tmp_path: Path, artifact: str) -> None:
    source = Folder(str(tmp_path / "source"))
    save_foreign_model(source.local_path)
    origin = {"source": {"name": "ward.csv", "kind": "notes"}, "teacher": {"model": "some-teacher"}}
    for details, expected in (({ORIGINS: [origin]}, [origin]), ({}, [{}])):
        write_manifest(source, artifact, {}, {}, details)
        found = prepare_base_model(Folder(str(tmp_path)), settings(source.uri), 128, 0, "")
        assert found[ORIGINS] == expected
    (source.local_path / "manifest.json").unlink()
    assert prepare_base_model(Folder(str(tmp_path)), settings(source.uri), 128, 0, "")[ORIGINS] == []


def prepared(root: Path, source: str) -> Path:
    prepare_base_model(Folder(str(root)), settings(source), 128, 0, "")
    return root / "base_model"


def logits_of(folder: Path) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(torch.arange(12)[None]).logits


def save_as_torch_file(source: Path, num_files: int, zipped: bool = True) -> None:
    """Turns a folder's safetensors into the form of older models."""
    tensors = load_file(source / "model.safetensors")
    (source / "model.safetensors").unlink()
    # Such files hold buffers too that models of today calculate.
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    names = sorted(tensors)
    parts = [names[number::num_files] for number in range(num_files)]
    files = ["pytorch_model.bin"] if num_files == 1 else [f"part-{number}.bin" for number in range(num_files)]
    for file, part in zip(files, parts, strict=True):
        content = {name: tensors[name] for name in part}
        torch.save(content, source / file, _use_new_zipfile_serialization=zipped)
    if num_files > 1:
        weight_map = {name: file for file, part in zip(files, parts, strict=True) for name in part}
        (source / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_safetensors_are_copied_as_they_are(tmp_path: Path) -> None:
    source = tmp_path / "source"
    save_foreign_model(source)
    (source / "consolidated.safetensors").write_bytes(b"the same weights in another form")
    folder = prepared(tmp_path, str(source))
    assert (folder / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
    assert not (folder / "consolidated.safetensors").exists()
    assert torch.equal(logits_of(folder), logits_of(source))
    hashes = read_sums(Folder(str(folder)))
    assert hashes == {"model.safetensors": Folder(str(folder)).sha256("model.safetensors")}


def test_files_of_a_large_model_are_copied_with_their_index(tmp_path: Path) -> None:
    source = tmp_path / "source"
    save_foreign_model(source)
    model = AutoModelForCausalLM.from_pretrained(source)
    (source / "model.safetensors").unlink()
    model.save_pretrained(source, max_shard_size="50KB")
    folder = prepared(tmp_path, str(source))
    names = {file.name for file in source.glob("*.safetensors*")}
    assert len(names) > 2
    assert {file.name for file in folder.glob("*.safetensors*")} == names
    assert torch.equal(logits_of(folder), logits_of(source))


@pytest.mark.parametrize(("num_files", "zipped"), [(1, True), (3, True), (1, False)])
def test_torchs_files_become_safetensors(tmp_path: Path, num_files: int, zipped: bool) -> None:
    source = tmp_path / "source"
    save_foreign_model(source)
    expected = logits_of(source)
    save_as_torch_file(source, num_files, zipped)
    folder = prepared(tmp_path, str(source))
    assert len(list(folder.glob("*.safetensors"))) == num_files
    assert not list(folder.glob("*.bin"))
    tensors = [name for file in folder.glob("*.safetensors") for name in load_file(file)]
    assert not any("inv_freq" in name for name in tensors)
    assert torch.equal(logits_of(folder), expected)


@pytest.mark.parametrize("form", ["safetensors", "torch"])
def test_tensors_under_other_names_are_found_by_transformers(tmp_path: Path, form: str) -> None:
    source = tmp_path / "source"
    save_foreign_model(source)
    expected = logits_of(source)
    AutoModelForCausalLM.from_pretrained(source).save_pretrained(source)
    tensors = {
        name.removeprefix("model."): tensor
        for name, tensor in load_file(source / "model.safetensors").items()
    }
    if form == "safetensors":
        save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    else:
        (source / "model.safetensors").unlink()
        torch.save(tensors, source / "pytorch_model.bin")
    folder = prepared(tmp_path, str(source))
    assert "model.norm.weight" in load_file(folder / "model.safetensors")
    assert torch.equal(logits_of(folder), expected)


def test_a_folder_without_weights_or_with_those_of_another_model_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "source"
    save_foreign_model(source)
    tensors = load_file(source / "model.safetensors")
    tensors["model.norm.weight"] = torch.ones(3)
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"model\.norm\.weight is of shape \[3\], where .* \[48\]"):
        prepared(tmp_path, str(source))
    (source / "model.safetensors").write_bytes(b"\x40" + b"\0" * 7 + b"{")
    with pytest.raises(ConfigError, match="no whole safetensors file"):
        prepared(tmp_path, str(source))
    (source / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="holds no weights"):
        prepared(tmp_path, str(source))
    (source / "pytorch_model.bin").write_bytes(pickle.dumps({"a": object()}, protocol=2))
    with pytest.raises(ConfigError, match=r"pytorch_model\.bin holds more than weights, or is damaged"):
        prepared(tmp_path, str(source))


def test_a_model_behind_a_uri_is_prepared_as_one_in_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    source = tmp_path / "source"
    save_foreign_model(source)
    server = ThreadedMotoServer(port=0)
    server.start()
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket="models")
        for form in ("safetensors", "torch"):
            uri = f"s3://models/{form}?region=us-east-1&endpoint_override={endpoint}"
            if form == "torch":
                save_as_torch_file(source, 2)
            Folder(uri).upload(source)
            folder = prepared(tmp_path / form, uri)
            reference = prepared(tmp_path / f"{form}-local", str(source))
            assert {file.name for file in folder.iterdir()} == {file.name for file in reference.iterdir()}
            assert torch.equal(logits_of(folder), logits_of(reference))
    finally:
        server.stop()


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
    save_foreign_model(stored / "blobs")
    (stored / "snapshots" / "abc").mkdir(parents=True)
    for file in (stored / "blobs").iterdir():
        # As the hub's client lays its files.
        (stored / "snapshots" / "abc" / file.name).symlink_to(file)
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text("abc")
    monkeypatch.setenv("HF_ENDPOINT", NOBODY_LISTENS)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    root = Folder(str(tmp_path / "root"))
    manifest = ensure_base_model(root, TokensConfig(sequence_length=128), settings(HUB_ID), 0, Progress())
    assert manifest.details["base_model"] == HUB_ID
    assert {"model.safetensors", "tokenizer.json", "chat_template.jinja"} <= set(manifest.files)
