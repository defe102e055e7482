"""What comes from the Hugging Face hub is checked as a folder is, and an adapter against its base model."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from served_models import save_tiny_model

from asclepius_ray.artifacts import Folder, write_manifest
from asclepius_ray.errors import ServingError
from asclepius_ray.progress import Progress
from asclepius_ray.prompts.rendering import prompt_text
from asclepius_ray.serving.stage import _warn_of_unchecked
from asclepius_ray.tokens.reference_logits import REFERENCE_NAME

OURS, FOREIGN, CHANGED = "ward/ours", "elsewhere/foreign", "ward/changed"
IN_A_NEW_PROCESS = """
import io, json, sys
from rich.console import Console
from asclepius_ray.errors import ServingError
from asclepius_ray.progress import Progress
from asclepius_ray.serving.model_source import fetch_model, locate_model
from asclepius_ray.serving.stage import _warn_of_unchecked

told = {}
for name in sys.argv[1:]:
    said = io.StringIO()
    try:
        _warn_of_unchecked(name, locate_model(name), {}, Progress(Console(file=said, width=1000)))
        fetched = fetch_model(locate_model(name))
    except ServingError as error:
        fetched = f"refused: {error}"
    told[name] = [fetched, said.getvalue()]
print(json.dumps(told))
"""
"""The hub's library reads its environment when it is imported."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model") / "one", seed=3)


def put_into_cache(cache: Path, name: str, folder: Path) -> Path:
    """A model in the cache as the hub's library lays it out; the folder of its snapshot."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    place = cache / f"models--{name.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(commit)
    (place / "blobs").mkdir()
    snapshot = place / "snapshots" / commit
    snapshot.mkdir(parents=True)
    for file in folder.iterdir():
        blob = place / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        shutil.copy(file, blob)
        (snapshot / file.name).symlink_to(f"../../blobs/{blob.name}")
    return snapshot


def as_exported(folder: Path, target: Path) -> Path:
    """The model with all that a training leaves beside its weights."""
    exported = Folder(str(shutil.copytree(folder, target)))
    exported.write_bytes("instruction_prompt.txt", prompt_text("instruction").encode())
    exported.write_bytes(REFERENCE_NAME, b"")
    write_manifest(exported, "model", {}, {}, {"prompt_ids_sha256": "0"})
    return target


def test_a_model_of_the_hub_is_checked_as_a_folder_is(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "hub"
    exported = as_exported(folder, tmp_path / "exported")
    ours = put_into_cache(cache, OURS, exported)
    put_into_cache(cache, FOREIGN, folder)
    changed = put_into_cache(cache, CHANGED, exported)
    (changed / "tokenizer.json").write_bytes(b"{}")
    environment = {**os.environ, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", IN_A_NEW_PROCESS, OURS, FOREIGN, CHANGED],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(ended.stdout)
    assert told[OURS] == [str(ours), ""]
    assert "came without the prompt and tokenizer and weights" in told[FOREIGN][1]
    assert Path(told[FOREIGN][0]).is_dir()
    assert "tokenizer.json is not what the training exported" in told[CHANGED][0]


def adapter_of(base: str | None, place: Path) -> Path:
    place.mkdir()
    (place / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    return place


def said_of(adapter: Path, model: str) -> str:
    said = io.StringIO()
    _warn_of_unchecked("one", model, {"cardiology": str(adapter)}, Progress(Console(file=said, width=1000)))
    return said.getvalue().partition("instruction prompt")[2].strip()


def base_folder(folder: Path, target: Path, name: str) -> str:
    """A base model as a run prepares it from a model of that name."""
    prepared = Folder(str(shutil.copytree(folder, target)))
    write_manifest(prepared, "base_model", {}, {}, {"base_model": name})
    return prepared.uri


def test_an_adapter_of_another_base_model_is_refused_by_both_names(folder: Path, tmp_path: Path) -> None:
    adapter = adapter_of("meta-llama/Llama-3.2-1B", tmp_path / "adapter")
    other = base_folder(folder, tmp_path / "other", "Qwen/Qwen3-0.6B")
    with pytest.raises(ServingError, match=r"'meta-llama/Llama-3.2-1B', and 'Qwen/Qwen3-0.6B' is served"):
        said_of(adapter, other)


def test_an_adapter_of_this_base_model_is_served_without_a_word(folder: Path, tmp_path: Path) -> None:
    of_the_hub = adapter_of("meta-llama/Llama-3.2-1B", tmp_path / "of-the-hub")
    assert said_of(of_the_hub, base_folder(folder, tmp_path / "own", "meta-llama/Llama-3.2-1B")) == ""
    assert said_of(of_the_hub, str(shutil.copytree(folder, tmp_path / "Llama-3.2-1B"))) == ""
    assert said_of(adapter_of(str(folder), tmp_path / "of-a-folder"), str(folder)) == ""


def test_where_the_names_do_not_tell_an_adapter_is_served_with_a_warning(
    folder: Path, tmp_path: Path
) -> None:
    nameless = said_of(adapter_of(None, tmp_path / "nameless"), str(folder))
    assert "the adapter cardiology belongs to one" in nameless
    assert "names no base model" in nameless
    elsewhere = said_of(adapter_of("/home/somebody/base", tmp_path / "elsewhere"), str(folder))
    assert f"it was trained on '/home/somebody/base', and '{folder}' is served" in elsewhere
