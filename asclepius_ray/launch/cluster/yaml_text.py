"""Documents ↔ YAML: no anchors, no tags, texts of several lines as blocks, always the same bytes."""

from collections.abc import Iterable
from typing import Any

import yaml

from asclepius_ray.errors import ConfigError

Json = dict[str, Any]
LINE_CHARACTERS = 110


def dump_documents(documents: Iterable[Json]) -> str:
    """The documents as one file, in the order of their keys."""
    texts = [
        yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=LINE_CHARACTERS, allow_unicode=True)
        for document in documents
    ]
    return "---\n".join(texts)


def load_documents(text: str, where: str) -> list[Json]:
    """Every document of a file that is not empty, none sharing a part with another; else a ConfigError."""
    try:
        found = [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from None
    for document in found:
        if not isinstance(document, dict):
            raise ConfigError(f"{where} holds a {type(document).__name__} where a mapping is expected")
    return [_unshared(document) for document in found]


def _unshared(value: Any) -> Any:
    """A copy in which what was an anchor stands everywhere for itself."""
    if isinstance(value, dict):
        return {key: _unshared(inner) for key, inner in value.items()}
    return [_unshared(inner) for inner in value] if isinstance(value, list) else value


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        # Lists stand deeper than their key, as in hand-written manifests.
        super().increase_indent(flow, False)


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)
