"""A base model's name → a folder that transformers can load: a folder, a URI or a Hugging Face id.

Needs neither torch nor transformers, so that a wrong name is refused before anything is paid for.
"""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import huggingface_hub
from huggingface_hub import constants

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import ConfigError
from asclepius_ray.training.config import TINY

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_HUB_TIMEOUT_SECONDS = 10.0
_WEIGHT_SUFFIXES = (".safetensors", ".bin")


def check_base_model(name: str) -> None:
    """A ConfigError if a base model of this name cannot be had; downloads nothing but a header."""
    if name == TINY:
        return
    if "://" in name:
        _require_config(name, Folder(name).exists("config.json"))
    elif Path(name).expanduser().is_dir():
        _require_config(name, (Path(name).expanduser() / "config.json").is_file())
    elif _HUB_ID.fullmatch(name):
        token = os.environ.get("HF_TOKEN")
        if constants.HF_HUB_OFFLINE or not _hub_answers(name, token):
            _fetch_from_hub(name, token)
    else:
        raise _no_such_model(name)


def base_model_identity(name: str) -> str:
    """A hash that tells whether a folder or URI still holds the same model; "" for "tiny" and hub ids.

    It covers config.json and the sizes of the weight files: to hash the weights would take minutes.
    """
    if name == TINY or not ("://" in name or Path(name).expanduser().is_dir()):
        return ""
    folder = Folder(name) if "://" in name else Folder(str(Path(name).expanduser()))
    _require_config(name, folder.exists("config.json"))
    filesystem, path = folder.filesystem()
    weights = [file for file in folder.names() if file.endswith(_WEIGHT_SUFFIXES)]
    sizes = {file: filesystem.get_file_info(f"{path}/{file}").size for file in weights}
    content = json.dumps({"config": folder.sha256("config.json"), "sizes": sizes}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


@contextmanager
def source_folder(name: str, token: str) -> Iterator[str]:
    """What transformers can load: a local folder (a URI is copied first) or a Hugging Face id."""
    if "://" in name:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Folder(name)
            _require_config(name, folder.exists("config.json"))
            folder.download(Path(scratch))
            yield scratch
    elif Path(name).expanduser().is_dir():
        folder_path = Path(name).expanduser()
        _require_config(name, (folder_path / "config.json").is_file())
        yield str(folder_path)
    elif _HUB_ID.fullmatch(name):
        yield _fetch_from_hub(name, token or None)
    else:
        raise _no_such_model(name)


def _no_such_model(name: str) -> ConfigError:
    return ConfigError(
        f"training.base_model {name!r} is no folder on the machine that loads it, no URI and no "
        'Hugging Face id; name a folder that every node sees, or "tiny"'
    )


def _require_config(name: str, there: bool) -> None:
    if not there:
        raise ConfigError(
            f"training.base_model {name!r} holds no config.json, so it is no Hugging Face model folder"
        )


def _fetch_from_hub(name: str, token: str | None) -> str:
    """The local snapshot of a Hugging Face id; says within seconds why it cannot be had."""
    offline = constants.HF_HUB_OFFLINE or not _hub_answers(name, token)
    patterns = ["*.json", "*.safetensors", "*.model", "*.jinja", "*.txt"]
    try:
        path = huggingface_hub.snapshot_download(
            name, token=token, local_files_only=offline, allow_patterns=patterns
        )
    except (OSError, ValueError, httpx2.HTTPError) as error:
        where = "and is not in the cache (HF_HOME)" if offline else f"({type(error).__name__})"
        raise ConfigError(
            f"training.base_model {name!r} is no folder here, and the Hugging Face model of that name cannot "
            f'be fetched {where}; check the name and the network, or use a local folder or "tiny"'
        ) from None
    return str(path)


def _hub_answers(name: str, token: str | None) -> bool:
    """One request without retries: False if the hub cannot be reached, a ConfigError if it refuses."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = f"{constants.ENDPOINT}/{name}/resolve/main/config.json"
    try:
        status = httpx2.head(url, headers=headers, timeout=_HUB_TIMEOUT_SECONDS).status_code
    except httpx2.HTTPError:
        return False
    if status in (401, 403, 404):
        given = "the HF_TOKEN given has no access" if token else "it may be gated: set HF_TOKEN"
        raise ConfigError(
            f"training.base_model {name!r}: there is no folder and no open Hugging Face model of that name "
            f"(HTTP {status}); check the name, and its terms if it has any ({given})"
        )
    return True
