"""A finished artefact of a run → what of it goes out, once all that forbids it has been looked for.

Reads manifests, cards and, for their hashes, the files that the manifests list; writes nothing.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from asclepius_ray.artifacts import MANIFEST_NAME, Folder, Manifest, is_finished, read_manifest
from asclepius_ray.errors import ConfigError, PublishError
from asclepius_ray.publish.card import check_card

CARD_NAME = "README.md"
JOB_OF = {"dataset": "synthesize", "model": "train"}
"""The artefacts that can go out, and the job that makes each."""
_KNOWN_FILES = {
    "dataset": (CARD_NAME, "train-*.parquet", "validation-*.parquet"),
    "model": (CARD_NAME, "*.safetensors", "*.json", "*.txt", "*.jinja", "*.model"),
}
"""All that these two are made of: a file of another kind is none that anybody meant to give away."""


@dataclass(frozen=True)
class Publication:
    """One artefact on its way out."""

    kind: str
    """"dataset" or "model"."""
    folder: Folder
    manifest: Manifest
    sizes: dict[str, int]
    """The files that go, the manifest last, with their bytes."""

    @property
    def version(self) -> str:
        """Names this content: the same files made from the same have the same version."""
        return self.manifest.identity[:16]

    @property
    def num_bytes(self) -> int:
        return sum(self.sizes.values())

    def at(self, folder: Folder) -> "Publication":
        """The same content, read from a copy."""
        return replace(self, folder=folder)


def open_run(root: Folder, allow_real_notes: bool) -> None:
    """A ConfigError if `root` is no run's folder, a PublishError if its notes are real and may not go out."""
    if not root.exists("run.json"):
        raise ConfigError(f"{root.uri} is not the folder of a run: it has no run.json")
    kinds = {json.loads(root.read_bytes("run.json"))["input"]["kind"]}
    for kind in JOB_OF:
        if is_finished(root.child(kind)):
            kinds |= _input_kinds(read_manifest(root.child(kind)).made_from)
    if "notes" in kinds and not allow_real_notes:
        raise PublishError(
            f'{root.uri} was made from real notes (input.kind = "notes"), and so is what was trained on '
            "them: neither goes out; if all of its patients' data may be published, say --allow-real-notes"
        )


def read_publication(root: Folder, kind: str) -> Publication:
    """The artefact with its manifest and card checked; a PublishError says what is missing."""
    folder = root.child(kind)
    if not is_finished(folder):
        raise PublishError(f"{folder.uri} is not finished; run the job {JOB_OF[kind]} on this root first")
    manifest = read_manifest(folder)
    _check_names(folder, kind, manifest)
    if CARD_NAME not in manifest.files:
        raise PublishError(
            f"{folder.uri} has no card ({CARD_NAME}), without which nobody can tell what it is and may "
            f"be used for; make it anew with this version (--redo {JOB_OF[kind]})"
        )
    there = folder.sizes()
    if gone := sorted(manifest.files.keys() - there.keys()):
        raise PublishError(f"{folder.uri} is damaged: {gone[0]} is not there; use --redo {JOB_OF[kind]}")
    text = folder.read_bytes(CARD_NAME).decode("utf-8", errors="replace")
    check_card(text, f"{folder.uri}/{CARD_NAME}", _teacher_of(root))
    names = [*sorted(manifest.files), MANIFEST_NAME]
    return Publication(kind, folder, manifest, {name: there[name] for name in names})


def check_hashes(publication: Publication, begin: Callable[[str], None]) -> None:
    """Reads every file and compares it with the manifest; a PublishError names one that differs.

    `begin` hears of each file before it is read.
    """
    for name, expected in publication.manifest.files.items():
        begin(f"{publication.kind}/{name}")
        if publication.folder.sha256(name) != expected:
            raise changed(publication, name)


def changed(publication: Publication, name: str) -> PublishError:
    """The error for a file that is not the one of the manifest."""
    return PublishError(
        f"{publication.folder.uri}/{name} is not the file that its manifest lists (another sha256): it was "
        f"changed or damaged since; use --redo {JOB_OF[publication.kind]} to make it anew"
    )


def _check_names(folder: Folder, kind: str, manifest: Manifest) -> None:
    for name in manifest.files:
        if not any(fnmatchcase(name, pattern) for pattern in _KNOWN_FILES[kind]):
            raise PublishError(
                f"{folder.uri} holds {name}, which is no part of a {kind} that is given away; take it out of "
                f"the run (--redo {JOB_OF[kind]}) before the rest can go"
            )


def _teacher_of(root: Folder) -> str:
    """Who wrote the texts that the dataset consists of and the model has learnt."""
    dataset = root.child("dataset")
    if not is_finished(dataset):
        return ""
    return str(read_manifest(dataset).details.get("teacher", {}).get("model", ""))


def _input_kinds(made_from: dict[str, Any]) -> set[str]:
    found = made_from.get("input", {})
    return {found["kind"]} if "kind" in found else set()
