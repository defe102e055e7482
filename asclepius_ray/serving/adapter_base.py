"""A LoRA adapter and the model that it was trained on: on another of the same shape it says anything."""

import json
from pathlib import PurePosixPath

from asclepius_ray.artifacts import Folder, is_finished, read_manifest
from asclepius_ray.config import is_place
from asclepius_ray.errors import ServingError
from asclepius_ray.serving.engines.adapter_folder import ADAPTER_CONFIG_NAME
from asclepius_ray.serving.model_source import is_hugging_face_id

BASE_KEY = "base_model_name_or_path"


def check_adapter_base(adapter: Folder, located_model: str) -> str:
    """Why nobody can tell whether the adapter was trained on this model; empty where it was.

    A ServingError where both are known by an id of the Hugging Face hub, and it is another one.
    """
    named, served = _named_base(adapter), _known_name(located_model)
    if not named:
        return f"its {ADAPTER_CONFIG_NAME} names no base model ({BASE_KEY})"
    if _last_part(named) == _last_part(served):
        return ""
    told = f"it was trained on {named!r}, and {served!r} is served"
    if _is_hub_id(named) and _is_hub_id(served):
        raise ServingError(
            f"the adapter {adapter.uri} does not belong to this model: {told}; serve it with its own base "
            f"model, or, if both are the same weights, write {served!r} into its {ADAPTER_CONFIG_NAME}"
        )
    return told


def _named_base(adapter: Folder) -> str:
    try:
        found = json.loads(adapter.read_bytes(ADAPTER_CONFIG_NAME))
        return str(found.get(BASE_KEY) or "")
    except (ValueError, AttributeError):
        raise ServingError(
            f"{adapter.uri}/{ADAPTER_CONFIG_NAME} is no JSON object; restore what peft wrote"
        ) from None


def _known_name(located_model: str) -> str:
    """What the model was called where it came from, else its place."""
    if is_hugging_face_id(located_model):
        return located_model
    folder = Folder(located_model)
    manifest = read_manifest(folder) if is_finished(folder) else None
    # A trained model names its base too, but is another one than that.
    if manifest is None or manifest.artifact != "base_model":
        return located_model
    return str(manifest.details.get("base_model") or located_model)


def _is_hub_id(name: str) -> bool:
    """A name without an owner may be the last part of a place."""
    return "/" in name and not is_place(name)


def _last_part(name: str) -> str:
    return PurePosixPath(name.partition("?")[0]).name.lower()
