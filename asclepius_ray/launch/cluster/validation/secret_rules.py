"""Keys that stand in a file instead of the name of a secret. Pure; no finding repeats what it found."""

import re
from collections.abc import Iterator

from asclepius_ray.launch.cluster.node_certificates import KEY_VARIABLE
from asclepius_ray.launch.cluster.validation.findings import Trouble
from asclepius_ray.launch.cluster.validation.manifests import Document, walk_texts
from asclepius_ray.launch.cluster.validation.reading import text_at

_NAME_OF_KEY = r"[A-Z0-9_]*(?:KEY|KEY_ID|TOKEN|SECRET|PASSWORD)"
_NAME = re.compile(_NAME_OF_KEY)
_ASSIGNED = re.compile(rf"\b{_NAME_OF_KEY}=[^\s$;]")
_KEY = re.compile(r"\b(sk-[\w-]{16,}|hf_\w{20,}|AKIA[0-9A-Z]{16}|ghp_\w{20,})|://[^/@\s]+:[^/@\s]+@")
_ADVICE = "name it by secretKeyRef, or in the keys' file of the nodes"


def secrets_by_name(document: Document) -> Iterator[Trouble]:
    """Every key that stands in the document itself."""
    if document.kind == "Secret":
        said = "a secret in a file is one that everybody with the file has"
        yield Trouble("data", said, "make it with kubectl create secret, and leave it out here")
        return
    yield from _written_variables(document.value, "")
    for path, text in walk_texts(document.value):
        if _KEY.search(text):
            yield Trouble(path, "it holds what looks like a key", _ADVICE)
        elif found := _ASSIGNED.search(text):
            yield Trouble(path, f"it holds the value of {found.group().partition('=')[0]}", _ADVICE)


def _written_variables(value: object, path: str) -> Iterator[Trouble]:
    """Environment variables of pods that hold a key's value."""
    if isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _written_variables(inner, f"{path}[{place}]")
    if not isinstance(value, dict):
        return
    name, written = text_at(value, "name"), text_at(value, "value")
    # Ray's own name for the file that holds a key.
    is_file = name == KEY_VARIABLE and written.startswith("/")
    if _NAME.fullmatch(name) and written and not is_file and not _KEY.search(written):
        yield Trouble(f"{path}.value", f"the value of {name} is written out", _ADVICE)
    for key, inner in value.items():
        yield from _written_variables(inner, f"{path}.{key}" if path else str(key))
