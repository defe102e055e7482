"""What is known of the texts that a base model has learnt already: what the manifest in its folder says.

Only a model that this program has made has such a manifest; of all others nothing is known here.
"""

from typing import Any

from asclepius_ray.artifacts import Folder, Manifest, is_finished, read_manifest
from asclepius_ray.errors import ArtifactError

ORIGINS = "origins"
"""The key in the details of `base_model/` and `model/`: `source` and `teacher` of each data set in them."""
_TOLD = ("source", "teacher")
_UNKNOWN: list[dict[str, Any]] = [{}]


def origins_of_base(folder: Folder) -> list[dict[str, Any]]:
    """The data sets that went into a model folder of ours, one whose `source` is missing if it is untold.

    [] for the folder of a model that others have made.
    """
    try:
        manifest = read_manifest(folder) if is_finished(folder) else None
    except ArtifactError:
        # Another program's file of that name says nothing to us.
        return []
    if manifest is None or manifest.artifact not in ("base_model", "model"):
        return []
    return told_origins(manifest)


def told_origins(manifest: Manifest) -> list[dict[str, Any]]:
    """What the manifest of a model of ours tells; untold if it was made before such was kept."""
    found: list[dict[str, Any]] = manifest.details.get(ORIGINS, _UNKNOWN)
    return found


def origin_of_rows(rows: Manifest) -> dict[str, Any]:
    """`source` and `teacher` of a data set, as far as its manifest tells."""
    return {name: rows.details[name] for name in _TOLD if name in rows.details}
