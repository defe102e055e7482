"""Where the rows of each kind lie: what the synthesis has left in the root, or the imported dataset.

`dataset` is the setting `training.dataset`.
"""

from asclepius_ray.artifacts import Folder, Manifest, read_manifest

IMPORTED = "imported_dataset"


def source_folders(root: Folder, dataset: str) -> dict[str, Folder]:
    """Kind of rows → the folder with its `train-*.parquet` and `validation-*.parquet`."""
    parent = root.child(IMPORTED) if dataset else root
    return {"notes": parent.child("notes"), "instructions": parent.child("dataset")}


def rows_manifest(root: Folder, dataset: str) -> Manifest:
    """The manifest that tells where the rows come from."""
    return read_manifest(root.child(IMPORTED if dataset else "dataset"))


def source_identities(root: Folder, dataset: str) -> dict[str, str]:
    """What is made from the rows names these: another dataset has other ones."""
    if dataset:
        return {IMPORTED: read_manifest(root.child(IMPORTED)).identity}
    return {name: read_manifest(root.child(name)).identity for name in ("notes", "dataset")}
