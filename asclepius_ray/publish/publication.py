"""A finished artefact of a run → what of it goes out, once all that forbids it has been looked for.

Reads manifests, cards and, for their hashes, the files that the manifests list; writes nothing.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from asclepius_ray.artifacts import MANIFEST_NAME, SUMS_NAME, Folder, Manifest, is_finished, read_manifest
from asclepius_ray.errors import ConfigError, PublishError
from asclepius_ray.publish.card import check_card
from asclepius_ray.training.base_model_origin import ORIGINS
from asclepius_ray.training.sources import IMPORTED

CARD_NAME = "README.md"
JOB_OF = {"dataset": "synthesize", "model": "train"}
"""The artefacts that can go out, and the job that makes each."""
_KNOWN_FILES = {
    "dataset": (CARD_NAME, "train-*.parquet", "validation-*.parquet"),
    "model": (CARD_NAME, SUMS_NAME, "*.safetensors", "*.tensors", "*.json", "*.txt", "*.jinja", "*.model"),
}
"""All that these two are made of: a file of another kind is none that anybody meant to give away."""
UNKNOWN = "unknown"
"""What a model's card says of a teacher of whom no manifest tells."""


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


def open_run(root: Folder, ordered: Sequence[str], allow_real_notes: bool) -> None:
    """A ConfigError if `root` is no run's folder, a PublishError if its notes are real and may not go out.

    A model has learnt what its base model had learnt before: that counts where the model is `ordered`.
    """
    if not root.exists("run.json"):
        raise ConfigError(f"{root.shown} is not the folder of a run: it has no run.json")
    kinds = {json.loads(root.read_bytes("run.json"))["input"]["kind"]}
    of_model = ("model", "base_model") if "model" in ordered else ()
    for artifact in ("dataset", IMPORTED, *of_model):
        if is_finished(root.child(artifact)):
            kinds |= _input_kinds(read_manifest(root.child(artifact)))
    if "notes" in kinds and not allow_real_notes:
        raise PublishError(
            f'{root.shown} was made from real notes (input.kind = "notes", in this run or in that of its '
            "data set or its base model), and so is what was trained on them: neither goes out; if all its "
            "patients' data may be published, say --allow-real-notes"
        )


def read_publication(root: Folder, kind: str, allow_unknown_origin: bool) -> Publication:
    """The artefact with its manifest and card checked; a PublishError says what is missing."""
    folder = root.child(kind)
    if not is_finished(folder):
        raise PublishError(f"{folder.shown} is not finished; run the job {JOB_OF[kind]} on this root first")
    manifest = read_manifest(folder)
    _check_names(folder, kind, manifest)
    if CARD_NAME not in manifest.files:
        raise PublishError(
            f"{folder.shown} has no card ({CARD_NAME}), without which nobody can tell what it is and may "
            f"be used for; make it anew with this version (--redo {JOB_OF[kind]})"
        )
    there = folder.sizes()
    if gone := sorted(manifest.files.keys() - there.keys()):
        raise PublishError(f"{folder.shown} is damaged: {gone[0]} is not there; use --redo {JOB_OF[kind]}")
    text = folder.read_bytes(CARD_NAME).decode("utf-8", errors="replace")
    teacher = _teacher_of(_rows_of(root, kind, manifest))
    if teacher == UNKNOWN and not allow_unknown_origin:
        raise PublishError(
            f"{folder.shown} was trained on a data set from elsewhere (training.dataset), and no manifest "
            "tells whose texts it holds, who wrote them and under which licence: it does not go out; if you "
            "know that it may, say --allow-unknown-origin"
        )
    if not allow_unknown_origin and any("source" not in it for it in manifest.details.get(ORIGINS, [])):
        raise PublishError(
            f"{folder.shown} began as a base model whose manifest does not tell whose texts it has learnt "
            "(training.base_model): it does not go out; if you know that it may, say --allow-unknown-origin"
        )
    check_card(text, f"{folder.shown}/{CARD_NAME}", teacher)
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
        f"{publication.folder.shown}/{name} is not the file that its manifest lists (another sha256): it was "
        f"changed or damaged since; use --redo {JOB_OF[publication.kind]} to make it anew"
    )


def _check_names(folder: Folder, kind: str, manifest: Manifest) -> None:
    for name in manifest.files:
        if not any(fnmatchcase(name, pattern) for pattern in _KNOWN_FILES[kind]):
            raise PublishError(
                f"{folder.shown} holds {name}, which is no part of a {kind} that is given away; take it out "
                f"of the run (--redo {JOB_OF[kind]}) before the rest can go"
            )


def _rows_of(root: Folder, kind: str, manifest: Manifest) -> Manifest | None:
    """The manifest of the rows that the artefact consists of, or that the model has learnt."""
    is_elsewhere = kind == "model" and "training_dataset" in manifest.made_from
    folder = root.child(IMPORTED if is_elsewhere else "dataset")
    return read_manifest(folder) if is_finished(folder) else None


def _teacher_of(rows: Manifest | None) -> str:
    """Who wrote the texts; "" where the manifest is gone, or of a run that has none."""
    if rows is None:
        return ""
    unnamed = UNKNOWN if rows.artifact == IMPORTED else ""
    return str(rows.details.get("teacher", {}).get("model", unnamed))


def _input_kinds(manifest: Manifest) -> set[str]:
    origins = [origin.get("source", {}) for origin in manifest.details.get(ORIGINS, [])]
    found = (manifest.made_from.get("input", {}), manifest.details.get("source", {}), *origins)
    return {values["kind"] for values in found if "kind" in values}
