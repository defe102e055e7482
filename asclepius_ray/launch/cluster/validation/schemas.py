"""KubeRay's resource definitions, as strict as `kubectl --validate=strict`: what does not fit them."""

import copy
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from asclepius_ray.errors import ConfigError
from asclepius_ray.launch.cluster.validation.findings import Trouble
from asclepius_ray.launch.cluster.yaml_text import Json

Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's where it is there: the definitions have a megabyte each."""


@functools.cache
def load_schema(folder: str, kind: str) -> Json:
    """The schema of a kind's version v1, made strict; a ConfigError says where to get it.

    Of the metadata Kubernetes itself takes care.
    """
    path = Path(folder) / f"ray.io_{kind.lower()}s.yaml"
    try:
        schema = _schema_in(yaml.load(path.read_text(encoding="utf-8"), Loader=Loader))
        schema["properties"]["metadata"] = {"type": "object"}
    except (OSError, ValueError, yaml.YAMLError, TypeError, KeyError, StopIteration) as error:
        raise ConfigError(
            f"--crds {folder}: {path.name} cannot be read as the definition of a {kind} "
            f"({type(error).__name__}); name a folder with KubeRay's definitions, as "
            "ray-operator/config/crd/bases of its repository"
        ) from None
    _make_strict(schema)
    return schema


def _schema_in(definition: Any) -> Json:
    versions = definition["spec"]["versions"]
    found: Json = next(
        version["schema"]["openAPIV3Schema"] for version in versions if version["name"] == "v1"
    )
    return found


def schema_troubles(manifest: Json, schema: Json) -> Iterator[Trouble]:
    """One trouble for each place that does not fit, with the schema's defaults filled in first."""
    filled = copy.deepcopy(manifest)
    _apply_defaults(filled, schema)
    for error in jsonschema.Draft7Validator(schema).iter_errors(filled):
        said = _shortened(error.message)
        yield Trouble(place_of(error), said, "correct it to what the resource definition allows")


def place_of(error: jsonschema.ValidationError) -> str:
    """The path of what is wrong; of a key too many or too few the key's own."""
    keys = list(error.absolute_path)
    if isinstance(error.instance, dict) and isinstance(error.schema, dict):
        if error.validator == "additionalProperties":
            keys += sorted(set(error.instance) - set(error.schema.get("properties", {})), key=str)[:1]
        if error.validator == "required":
            needed: Any = error.validator_value
            keys += [key for key in needed if key not in error.instance][:1]
    path = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys)
    return path.removeprefix(".")


def _shortened(message: str) -> str:
    return message if len(message) <= 200 else f"{message[:80]} ... {message[-110:]}"


def _make_strict(node: Any) -> None:
    if isinstance(node, list):
        for child in node:
            _make_strict(child)
    if not isinstance(node, dict):
        return
    if node.get("x-kubernetes-int-or-string"):
        node.pop("type", None)
        node["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if isinstance(node.get("properties"), dict) and not node.get("x-kubernetes-preserve-unknown-fields"):
        node.setdefault("additionalProperties", False)
    for child in node.values():
        _make_strict(child)


def _apply_defaults(value: Any, schema: Json) -> None:
    """Fills defaults in and drops nulls, as the API server does before it looks at required keys."""
    if isinstance(value, list):
        for item in value:
            _apply_defaults(item, schema.get("items", {}))
    if not isinstance(value, dict):
        return
    for name, inner in schema.get("properties", {}).items():
        if value.get(name) is None and "default" in inner:
            value[name] = copy.deepcopy(inner["default"])
        elif name in value and value[name] is None:
            del value[name]
        elif name in value:
            _apply_defaults(value[name], inner)
