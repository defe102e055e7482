"""The committed files of cluster/: how each is rendered, and how they are read and changed by a test."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from asclepius_ray.launch.cluster.profile import Profile, load_profile
from asclepius_ray.launch.cluster.validation.manifests import Document
from asclepius_ray.launch.cluster.yaml_text import Json, load_documents

PROJECT = Path(__file__).resolve().parents[2]
CLUSTER = PROJECT / "cluster"
RUN_FILE = "jobs/runs/llama3-8b.toml"


@dataclass(frozen=True)
class Committed:
    """A file of cluster/ and what it comes from."""

    profile: str
    target: str
    run: str = ""
    beside: tuple[str, ...] = ()
    """Files that are applied together with it."""


FILES = {
    "aws.yaml": Committed("aws", "aws"),
    "gcp.yaml": Committed("gcp", "gcp"),
    "storage.yaml": Committed("kubernetes", "storage"),
    "raycluster.yaml": Committed("kubernetes", "raycluster", beside=("storage.yaml",)),
    "rayjob.yaml": Committed("kubernetes", "rayjob", RUN_FILE, ("storage.yaml",)),
    "rayservice.yaml": Committed("kubernetes", "rayservice", RUN_FILE, ("storage.yaml", "rayjob.yaml")),
    "queues/kueue.yaml": Committed("kueue", "rayjob", RUN_FILE, ("storage.yaml",)),
    "queues/volcano.yaml": Committed("volcano", "rayjob", RUN_FILE, ("storage.yaml",)),
    "queues/yunikorn.yaml": Committed("yunikorn", "rayjob", RUN_FILE, ("storage.yaml",)),
}
KINDS = {"raycluster.yaml": "RayCluster", "rayjob.yaml": "RayJob", "rayservice.yaml": "RayService"}


def profile_of(file: str) -> Profile:
    return load_profile(str(CLUSTER / "profiles" / f"{FILES[file].profile}.toml"))


def documents_of(file: str) -> list[Document]:
    """The file's documents, then those of the files beside it."""
    names = (file, *FILES[file].beside)
    return [
        Document(name, value)
        for name in names
        for value in load_documents((CLUSTER / name).read_text(), name)
    ]


def document(file: str, kind: str) -> Json:
    """One document of a file, a fresh copy; `kind` as "Kind", or as "Kind/name" where there are several."""
    (found,) = [one.value for one in documents_of(file) if _is(one, file, kind)]
    return found


def _is(one: Document, file: str, kind: str) -> bool:
    name, _, called = kind.partition("/")
    return (one.file, one.kind) == (file, name) and called in ("", one.name)


def changed(
    documents: list[Document], file: str, kind: str, changes: Iterable[tuple[str, object]]
) -> list[Document]:
    """The documents with places of one of them set, or taken away with `...`."""
    (index,) = [place for place, one in enumerate(documents) if _is(one, file, kind)]
    copies = [replace(one, value=_copy(one.value)) for one in documents]
    for path, value in changes:
        _change(copies[index].value, path, value)
    return copies


def places_in(value: Any, path: str = "") -> Iterator[str]:
    """The path of everything in a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, found in inner:
        if "/" not in str(key):
            place = f"{path}/{key}" if path else str(key)
            yield place
            yield from places_in(found, place)


def _change(place: Any, path: str, value: object) -> None:
    *parents, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    for part in parents:
        place = place[part] if isinstance(part, int) else place.setdefault(part, {})
    if value is ...:
        del place[last]
    elif isinstance(last, int) and last == len(place):
        place.append(value)
    else:
        place[last] = value


def as_path(path: str) -> str:
    """`spec/groups/1/name` as findings name it: `spec.groups[1].name`."""
    return re.sub(r"\.(\d+)(?=\.|$)", r"[\1]", path.replace("/", "."))


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(inner) for key, inner in value.items()}
    return [_copy(inner) for inner in value] if isinstance(value, list) else value
