"""`evaluation.realism.model` → where that model lies, what it is known by, and a folder of it on a node.

Needs neither ray nor torch.
"""

import hashlib
import json
import re
from pathlib import Path

import httpx2
import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from huggingface_hub.utils.tqdm import disable_progress_bars

from asclepius_ray.artifacts import MANIFEST_NAME, Folder, Manifest, is_finished, read_manifest
from asclepius_ray.errors import ConfigError
from asclepius_ray.evaluation.config import MODEL_FOLDERS
from asclepius_ray.node_cache import UNKNOWN, fetch_to_node

_CONFIG_NAME = "config.json"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_HUB_TIMEOUT_SECONDS = 10.0
_SMALL_FILES = ["*.json", "*.model", "*.jinja", "*.txt"]
_SAFE_WEIGHTS, _OLD_WEIGHTS = "*.safetensors", "*.bin"
_SETTING = "evaluation.realism.model"


def locate_model(root: Folder, name: str) -> str:
    """The model as every node finds it: an absolute path, a URI, or an id of the Hugging Face hub.

    Of an id nothing is asked yet. A ConfigError for what is none of these, an ArtifactError for a model of
    the run's own that is not finished.
    """
    if name in MODEL_FOLDERS:
        folder = root.child(MODEL_FOLDERS[name]).absolute()
        read_manifest(folder)
        return folder.uri
    return _locate_elsewhere(name)


def check_model(name: str, token: str) -> None:
    """A ConfigError if a model that is not the run's own cannot be had; downloads nothing."""
    if name in MODEL_FOLDERS or not _is_hub_id(_locate_elsewhere(name)):
        return
    try:
        if not _is_cached(name):
            # Without the retries of a download: a misspelt name is to be reported at once.
            huggingface_hub.HfApi(token=token or None).model_info(name, timeout=_HUB_TIMEOUT_SECONDS)
    except (HfHubHTTPError, HFValidationError, httpx2.HTTPError, OSError) as error:
        raise _not_fetched(name, error) from None


def model_identity(root: Folder, name: str) -> str:
    """A hash that tells whether a folder still holds the same model; "" for an id of the hub.

    That of its manifest; without one it covers config.json and the sizes of all files: to hash weights would
    take minutes.
    """
    place = locate_model(root, name)
    return "" if _is_hub_id(place) else _identity_of(Folder(place))


def fetch_model(place: str, token: str) -> Path:
    """A folder on this node with the located model in it; fetched once a node where it is not there yet."""
    if _is_hub_id(place):
        return Path(_fetch_from_hub(place, token or None))
    folder = Folder(place)
    if folder.is_local and not folder.exists(_CONFIG_NAME):
        raise ConfigError(f"{_SETTING}: {place} is not on every node; use a shared folder or a URI")
    manifest = read_manifest(folder) if not folder.is_local and is_finished(folder) else None
    return fetch_to_node(folder, _identity_of(folder), _hashes(folder, manifest))


def _locate_elsewhere(name: str) -> str:
    if "://" in name or Path(name).expanduser().is_dir():
        folder = Folder(name if "://" in name else str(Path(name).expanduser())).absolute()
        if not folder.exists(_CONFIG_NAME):
            raise ConfigError(
                f"{_SETTING} {name!r} holds no {_CONFIG_NAME}, so it is no Hugging Face model folder"
            )
        return folder.uri
    if _HUB_ID.fullmatch(name):
        return name
    raise ConfigError(
        f"{_SETTING} {name!r} is no folder here, no URI and no Hugging Face id; name one of these, or "
        + " or ".join(f'"{own}"' for own in MODEL_FOLDERS)
    )


def _hashes(folder: Folder, manifest: Manifest | None) -> dict[str, str]:
    if manifest is None:
        return dict.fromkeys(folder.names(), UNKNOWN)
    return {**manifest.files, MANIFEST_NAME: UNKNOWN}


def _identity_of(folder: Folder) -> str:
    if is_finished(folder):
        return read_manifest(folder).identity
    content = {"config": folder.sha256(_CONFIG_NAME), "sizes": folder.sizes()}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _is_hub_id(place: str) -> bool:
    return "://" not in place and not Path(place).is_absolute()


def _is_cached(name: str) -> bool:
    try:
        huggingface_hub.hf_hub_download(name, _CONFIG_NAME, local_files_only=True)
    except LocalEntryNotFoundError:
        return False
    return True


def _fetch_from_hub(name: str, token: str | None) -> str:
    """The snapshot in the hub's cache on this node, brought up to date where the hub can be reached."""
    disable_progress_bars()

    def snapshot(weights: str) -> str:
        wanted = [*_SMALL_FILES, weights]
        return str(huggingface_hub.snapshot_download(name, token=token, allow_patterns=wanted))

    try:
        folder = snapshot(_SAFE_WEIGHTS)
        # Many models are published in several formats at once, and one is enough.
        return folder if any(Path(folder).glob(_SAFE_WEIGHTS)) else snapshot(_OLD_WEIGHTS)
    except (HfHubHTTPError, LocalEntryNotFoundError, httpx2.HTTPError, OSError) as error:
        raise _not_fetched(name, error) from None


def _not_fetched(name: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"{_SETTING} {name!r} is no folder here, and the Hugging Face model of that name cannot be had "
        f"({type(error).__name__}); check its spelling, the network, and HF_TOKEN if it is not open to all"
    )
