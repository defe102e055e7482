"""Laying raw YAML over rendered documents, for what a profile has no field for. Pure."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from asclepius_ray.errors import ConfigError
from asclepius_ray.launch.cluster.yaml_text import Json

_IDENTITIES = {"volumeMounts": ("mountPath",), "tolerations": ("key", "effect")}
"""By what two items of such a list are the same thing, as Kubernetes counts them."""
_NAMES = ("name", "groupName", "DeviceName")
"""By what in other lists: containers, variables and volumes, worker groups, disks."""
_IDENTITY = ("apiVersion", "kind", "metadata")


def lay_over(documents: Sequence[Json], overlay: Sequence[Json], where: str) -> list[Json]:
    """The documents with each of the overlay's merged into the one of its kind.

    Mappings are merged, a null takes a key away, lists of named things are merged by name (mounts by their
    place, tolerations by key and effect), and anything else takes the place of what was there. A whole
    document of a kind that is not there is added. What could be meant in two ways is a ConfigError.
    """
    merged = [copy.deepcopy(document) for document in documents]
    for addition in overlay:
        position = _position(merged, addition)
        if position is not None:
            merged[position] = merge(merged[position], addition, where)
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


def merge(value: Any, addition: Any, where: str, key: str = "") -> Any:
    """`value` with `addition` over it, both under `key`; `where` is the overlay's name for an error."""
    if isinstance(value, Mapping) and isinstance(addition, Mapping):
        merged = dict(value)
        for name, inner in addition.items():
            if inner is None:
                merged.pop(name, None)
            else:
                found = name in merged
                merged[name] = merge(merged[name], inner, where, name) if found else copy.deepcopy(inner)
        return merged
    if isinstance(value, list) and isinstance(addition, list) and (identity := _identity(key, value)):
        return _merge_items(value, addition, identity, f"{where}: {key}")
    return copy.deepcopy(addition)


def _merge_items(value: list[Any], addition: list[Any], identity: tuple[str, ...], where: str) -> list[Any]:
    if not addition:
        raise ConfigError(f"{where} is empty, which changes nothing; write null in its place to take it away")
    merged = _by_identity(value, identity, where)
    for which, item in _by_identity(addition, identity, where).items():
        merged[which] = merge(merged.get(which, {}), item, where)
    return list(merged.values())


def _by_identity(items: list[Any], identity: tuple[str, ...], where: str) -> dict[tuple[Any, ...], Any]:
    found: dict[tuple[Any, ...], Any] = {}
    by = " and ".join(identity)
    for item in items:
        # A toleration, which is known by two, stands for all keys or effects where it names none.
        if not isinstance(item, Mapping) or (len(identity) == 1 and identity[0] not in item):
            raise ConfigError(f"{where} has an item without {by}, by which it would be found; add it")
        which = tuple(item.get(part) for part in identity)
        if which in found:
            said = ", ".join(repr(part) for part in which)
            raise ConfigError(f"{where} has two items with the {by} {said}; write one, with all that it says")
        found[which] = item
    return found


def _identity(key: str, items: list[Any]) -> tuple[str, ...]:
    """By what the items of the list under `key` are known; empty where they are not."""
    if key in _IDENTITIES:
        return _IDENTITIES[key]
    if not items or not all(isinstance(item, Mapping) for item in items):
        return ()
    return next(((name,) for name in _NAMES if all(name in item for item in items)), ())


def _position(documents: list[Json], addition: Json) -> int | None:
    """Where the document stands that the addition names: by its kind, and by its name where it has one."""
    name = (addition.get("metadata") or {}).get("name")
    for position, document in enumerate(documents):
        if document.get("kind") != addition.get("kind"):
            continue
        if name in (None, (document.get("metadata") or {}).get("name")):
            return position
    return None
