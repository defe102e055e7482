"""What is known of where a dataset from elsewhere comes from: what the manifest beside its tables says of it.

Only a dataset that this program has made has such a manifest; of all others nothing is known, and nothing is
taken to be so.
"""

from typing import Any

from asclepius_ray.artifacts import Folder, Manifest, is_finished, read_manifest
from asclepius_ray.errors import ArtifactError
from asclepius_ray.training.dataset_source import find_source

_TOLD = ("source", "teacher")


def read_origin(path: str) -> dict[str, Any]:
    """`source` and `teacher` of the dataset's own manifest; {} if none vouches for these very tables."""
    manifest = _manifest_beside(Folder(path))
    if manifest is None or not all(name in manifest.details for name in _TOLD):
        return {}
    source = find_source(path)
    found = {table.sha256() for table in (*source.train, *source.validation)}
    if not found <= set(manifest.files.values()):
        return {}
    return {name: manifest.details[name] for name in _TOLD}


def _manifest_beside(folder: Folder) -> Manifest | None:
    try:
        manifest = read_manifest(folder) if is_finished(folder) else None
    except ArtifactError:
        # Another program's file of that name says nothing to us.
        return None
    return manifest if manifest is not None and manifest.artifact == "dataset" else None
