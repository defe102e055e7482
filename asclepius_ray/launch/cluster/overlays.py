"""Laying raw YAML over rendered documents, for what a profile has no field for. Pure."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from asclepius_ray.errors import ConfigError
from asclepius_ray.launch.cluster.yaml_text import Json

NAMES_OF_ITEMS = ("name", "groupName", "key", "DeviceName")
"""By which items of two lists are the same thing: containers, worker groups, tolerations, disks."""
_IDENTITY = ("apiVersion", "kind", "metadata")


def lay_over(documents: Sequence[Json], overlay: Sequence[Json], where: str) -> list[Json]:
    """The documents with each of the overlay's merged into the one of its kind.

    Mappings are merged, a null takes a key away, lists of named things are merged by name, and anything
    else takes the place of what was there. A whole document of a kind that is not there is added.
    """
    merged = [copy.deepcopy(document) for document in documents]
    for addition in overlay:
        position = _position(merged, addition)
        if position is not None:
            merged[position] = merge(merged[position], addition)
        elif all(addition.get(key) for key in _IDENTITY):
            merged.append(copy.deepcopy(addition))
        else:
            kinds = ", ".join(
                sorted({str(document.get("kind", "the launcher's file")) for document in merged})
            )
            raise ConfigError(
                f"{where}: a document of kind {addition.get('kind')!r} has nothing to be laid over, there is "
                f"{kinds}; correct its kind and name, or write it whole, with apiVersion, kind and metadata"
            )
    return merged


def merge(value: Any, addition: Any) -> Any:
    """`value` with `addition` over it."""
    if isinstance(value, Mapping) and isinstance(addition, Mapping):
        merged = dict(value)
        for key, inner in addition.items():
            if inner is None:
                merged.pop(key, None)
            else:
                merged[key] = merge(merged[key], inner) if key in merged else copy.deepcopy(inner)
        return merged
    if isinstance(value, list) and isinstance(addition, list) and (name := _name_key([*value, *addition])):
        return _merge_named(value, addition, name)
    return copy.deepcopy(addition)


def _merge_named(value: list[Json], addition: list[Json], name: str) -> list[Json]:
    merged = {item[name]: item for item in value}
    for item in addition:
        merged[item[name]] = merge(merged.get(item[name], {}), item)
    return list(merged.values())


def _name_key(items: list[Any]) -> str:
    if not items or not all(isinstance(item, Mapping) for item in items):
        return ""
    return next((name for name in NAMES_OF_ITEMS if all(name in item for item in items)), "")


def _position(documents: list[Json], addition: Json) -> int | None:
    """Where the document stands that the addition names: by its kind, and by its name where it has one."""
    name = (addition.get("metadata") or {}).get("name")
    for position, document in enumerate(documents):
        if document.get("kind") != addition.get("kind"):
            continue
        if name in (None, (document.get("metadata") or {}).get("name")):
            return position
    return None
