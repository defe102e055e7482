"""A base model's name → the folder that holds it: a local one, one behind a URI, or a snapshot of the hub.

Needs neither torch nor transformers, so that a wrong name is refused before anything is paid for.
"""

import hashlib
import json
import os
import re
from functools import partial
from pathlib import Path

import httpx2
import huggingface_hub
from huggingface_hub import constants

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import ConfigError
from asclepius_ray.training.config import TINY

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_HUB_TIMEOUT_SECONDS = 10.0
WEIGHT_SUFFIXES = (".safetensors", ".bin")
SMALL_SUFFIXES = (".json", ".model", ".jinja", ".txt")
_SINGLE_FILES = ["model.safetensors", "pytorch_model.bin"]


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
    weights = [file for file in folder.names() if file.endswith(WEIGHT_SUFFIXES)]
    sizes = {file: filesystem.get_file_info(f"{path}/{file}").size for file in weights}
    content = json.dumps({"config": folder.sha256("config.json"), "sizes": sizes}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def source_folder(name: str, token: str, with_weights: bool = True) -> Folder:
    """Where the base model's files lie; those of a Hugging Face id are fetched to this machine first.

    A local folder is given by its absolute path: what is relative is an id, whatever lies in this process's
    working directory. `with_weights` = False: the weights are not fetched.
    """
    if "://" in name or (Path(name).is_absolute() and Path(name).is_dir()):
        folder = Folder(name)
    elif _HUB_ID.fullmatch(name):
        return Folder(_fetch_from_hub(name, token or None, with_weights))
    else:
        raise _no_such_model(name)
    _require_config(name, folder.exists("config.json"))
    return folder


def weight_files(folder: Folder) -> list[str]:
    """The files that hold the weights, as transformers chooses them: safetensors before torch's own.

    [] where there are neither."""
    for stem, suffix in (("model", ".safetensors"), ("pytorch_model", ".bin")):
        index, single = f"{stem}{suffix}.index.json", f"{stem}{suffix}"
        if folder.exists(single):
            return [single]
        if folder.exists(index):
            return sorted(set(json.loads(folder.read_bytes(index))["weight_map"].values()))
    return []


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


def _fetch_from_hub(name: str, token: str | None, with_weights: bool = True) -> str:
    """The local snapshot of a Hugging Face id; says within seconds why it cannot be had."""
    offline = constants.HF_HUB_OFFLINE or not _hub_answers(name, token)
    snapshot = partial(huggingface_hub.snapshot_download, name, token=token, local_files_only=offline)
    try:
        # The weights in a second step: many models are published in several formats at once.
        path = str(snapshot(allow_patterns=[f"*{suffix}" for suffix in SMALL_SUFFIXES]))
        if with_weights and not offline:
            snapshot(allow_patterns=weight_files(Folder(path)) or _SINGLE_FILES[:1])
            if not weight_files(Folder(path)):
                snapshot(allow_patterns=_SINGLE_FILES[1:])
    except (OSError, ValueError, httpx2.HTTPError) as error:
        where = "and is not in the cache (HF_HOME)" if offline else f"({type(error).__name__})"
        raise ConfigError(
            f"training.base_model {name!r} is no folder here, and the Hugging Face model of that name cannot "
            f'be fetched {where}; check the name and the network, or use a local folder or "tiny"'
        ) from None
    return path


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
