"""Where a model lies → a folder on this node, checked to be what the training exported.

A model is a local folder, a URI (fetched once per node) or a Hugging Face id.
"""

import hashlib
import re
from functools import cache
from pathlib import Path

import httpx2
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from transformers.utils.logging import disable_progress_bar

from asclepius_ray.artifacts import MANIFEST_NAME, Folder, is_finished, read_manifest
from asclepius_ray.errors import ServingError
from asclepius_ray.node_cache import UNKNOWN, fetch_to_node
from asclepius_ray.serving.engines.adapter_folder import ADAPTER_CONFIG_NAME
from asclepius_ray.serving.parity import PROMPT_NAME, check_files
from asclepius_ray.tokens.reference_logits import REFERENCE_NAME

CONFIG_NAME = "config.json"
SAFE_WEIGHTS = "*.safetensors"
OLD_WEIGHTS = "*.bin"
OTHER_FORMATS = (
    "*.pt",
    "*.pth",
    "*.ckpt",
    "*.h5",
    "*.msgpack",
    "*.gguf",
    "*.onnx",
    "*.onnx_data",
    "*.tflite",
)
"""Of a model of the hub: no engine here reads them, and they are as large as the weights once more."""
HUB_TIMEOUT_SECONDS = 5.0
_HUGGING_FACE_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def locate_model(model: str) -> str:
    """The model as every node finds it; a ServingError if it is neither a folder, a URI nor an id."""
    if "://" in model:
        return _located_folder(model, Folder(model))
    if Path(model).expanduser().is_dir():
        return _located_folder(model, _folder_here(model))
    if not _HUGGING_FACE_ID.fullmatch(model):
        raise ServingError(f"the model {model!r} is not there: no such folder, and no Hugging Face id")
    try:
        if not _is_cached(model):
            # Without the retries of a download: a misspelt name is to be reported at once.
            HfApi().model_info(model, timeout=HUB_TIMEOUT_SECONDS)
    except (HfHubHTTPError, HFValidationError, httpx2.HTTPError, OSError) as error:
        raise ServingError(
            f"the model {model!r} is neither a folder here nor a Hugging Face model that can be read "
            f"({type(error).__name__}); check its spelling, the network, and HF_TOKEN if it is private"
        ) from None
    return model


def fetch_model(located: str) -> str:
    """A folder on this node; what differs from its manifest is refused."""
    folder = Folder(_fetch_from_hub(located) if is_hugging_face_id(located) else located)
    if not folder.is_local:
        folder = Folder(str(_fetch_to_cache(folder)))
    elif not folder.exists(CONFIG_NAME):
        raise ServingError(f"{located} is not on the node of the replica; use a shared folder or a URI")
    check_files(folder)
    return str(folder.local_path)


def checked_files(located: str) -> Folder:
    """Where to look for what a model can be checked by; of one of the hub nothing else is fetched."""
    if not is_hugging_face_id(located):
        return Folder(located)
    return Folder(_snapshot(located, allow_patterns=[MANIFEST_NAME, PROMPT_NAME, REFERENCE_NAME]))


def locate_adapter(adapter: str) -> str:
    """The LoRA adapter as every node finds it; a ServingError if it is neither a folder nor a URI of one."""
    folder = Folder(adapter) if "://" in adapter else _folder_here(adapter)
    try:
        found = folder.exists(ADAPTER_CONFIG_NAME)
    except OSError as error:
        raise ServingError(f"the adapter {adapter!r} cannot be reached: {error}") from None
    if not found:
        raise ServingError(
            f"the adapter {adapter!r} is not a folder of a LoRA adapter: it has no {ADAPTER_CONFIG_NAME}"
        )
    return folder.uri


def fetch_adapter(located: str) -> str:
    """A folder on this node."""
    folder = Folder(located)
    if not folder.is_local:
        folder = Folder(str(_fetch_to_cache(folder, ADAPTER_CONFIG_NAME)))
    elif not folder.exists(ADAPTER_CONFIG_NAME):
        raise ServingError(f"{located} is not on the node of the replica; use a shared folder or a URI")
    return str(folder.local_path)


def adapter_revision(located: str) -> str:
    """What tells an adapter from another one at the same place."""
    return _revision(Folder(located), ADAPTER_CONFIG_NAME)


def model_revision(located: str) -> str:
    """What tells a model from another one at the same place; empty for an id of the hub."""
    if is_hugging_face_id(located):
        return ""
    return _revision(Folder(located), CONFIG_NAME)


@cache
def hub_revision(model: str) -> str:
    """The commit of a hub model as this process will fetch it: the hub's, or where it is away the cache's.

    "" where neither tells one. Asked once a process, so that one run knows one revision.
    """
    try:
        return HfApi().model_info(model, timeout=HUB_TIMEOUT_SECONDS).sha or ""
    except (HfHubHTTPError, HFValidationError, httpx2.HTTPError, OSError):
        pass
    try:
        # The cache holds each commit in a folder of its name.
        return Path(hf_hub_download(model, CONFIG_NAME, local_files_only=True)).parent.name
    except LocalEntryNotFoundError:
        return ""


def _revision(folder: Folder, config_name: str) -> str:
    return read_manifest(folder).identity if is_finished(folder) else _state(folder, config_name)


def _folder_here(place: str) -> Folder:
    return Folder(str(Path(place).expanduser().absolute()))


def _located_folder(model: str, folder: Folder) -> str:
    try:
        found = folder.exists(CONFIG_NAME)
    except OSError as error:
        raise ServingError(f"the model {model!r} cannot be reached: {error}") from None
    if not found:
        raise ServingError(f"the model {model!r} is not a Hugging Face folder: it has no {CONFIG_NAME}")
    return folder.uri


def _is_cached(model: str) -> bool:
    try:
        hf_hub_download(model, CONFIG_NAME, local_files_only=True)
    except LocalEntryNotFoundError:
        return False
    return True


def _fetch_from_hub(model: str) -> str:
    folder = _snapshot(model, ignore_patterns=[*OTHER_FORMATS, OLD_WEIGHTS])
    if any(Path(folder).glob(SAFE_WEIGHTS)):
        return folder
    return _snapshot(model, ignore_patterns=list(OTHER_FORMATS))


def _snapshot(
    model: str, *, allow_patterns: list[str] | None = None, ignore_patterns: list[str] | None = None
) -> str:
    """The folder of the hub's cache on this node, brought up to date where the hub can be reached."""
    disable_progress_bar()
    try:
        return snapshot_download(model, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns)
    except (HfHubHTTPError, LocalEntryNotFoundError, httpx2.HTTPError, OSError) as error:
        raise ServingError(
            f"the model {model!r} cannot be fetched from the Hugging Face hub to this node "
            f"({type(error).__name__}); check the network, its disk, and HF_TOKEN for a private model"
        ) from None


def is_hugging_face_id(located: str) -> bool:
    """Whether a located model is an id of the hub, and no folder or URI."""
    return "://" not in located and not Path(located).is_absolute()


def _fetch_to_cache(folder: Folder, config_name: str = CONFIG_NAME) -> Path:
    """Copies a folder once per node; a changed one in the bucket gets another place in the cache."""
    if is_finished(folder):
        manifest = read_manifest(folder)
        return fetch_to_node(folder, manifest.identity, {**manifest.files, MANIFEST_NAME: UNKNOWN})
    return fetch_to_node(folder, _state(folder, config_name), dict.fromkeys(folder.names(), UNKNOWN))


def _state(folder: Folder, config_name: str) -> str:
    """A hash of what tells a folder without a manifest from a changed one: names, sizes and times."""
    filesystem, path = folder.filesystem()
    files = [filesystem.get_file_info(f"{path}/{name}") for name in folder.names()]
    state = [(info.path, info.size, info.mtime_ns) for info in files]
    return hashlib.sha256(f"{folder.uri}{state}".encode() + folder.read_bytes(config_name)).hexdigest()
