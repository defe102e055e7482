"""Where a run lives on a cluster: what its file names relatively is moved to the shared storage. Pure."""

from pathlib import PurePosixPath

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import ConfigError
from asclepius_ray.launch.cluster.storage_sections import StorageSection
from asclepius_ray.launch.locations import Place, places_of
from asclepius_ray.run import Run


def storage_folder(storage: StorageSection) -> Folder:
    """The folder of all runs, on the volume or in the bucket."""
    if storage.volume:
        return Folder(storage.volume.folder)
    assert storage.bucket is not None
    query = ""
    if storage.bucket.endpoint:
        query = f"?scheme={storage.bucket.endpoint_scheme}&endpoint_override={storage.bucket.endpoint}"
    return Folder(storage.bucket.uri.rstrip("/") + query)


def place_run(job: str, run: Run, storage: StorageSection) -> list[Place]:
    """The settings to override: the root is named after the run, an input keeps the last part of its path.

    A place in a bucket and an absolute path stay as they are. A ConfigError for what cannot be in a bucket.
    """
    folder = storage_folder(storage)
    moved = []
    for place in places_of(job, run):
        path = PurePosixPath(place.path)
        if Folder(place.path).is_local and not path.is_absolute() and "://" not in place.path:
            if place.is_of_each_node and not folder.is_local:
                raise ConfigError(
                    f"{place.setting} = {place.path!r} would be moved into the bucket of [storage], and it "
                    "is read and written as a local file; give the absolute path that it has on the nodes"
                )
            name = run.name if place.setting == "root" else path.name
            moved.append(Place(place.setting, folder.child(name).uri))
    return moved


def place_service(run: Run, storage: StorageSection) -> Run:
    """The run with the places that its serving reads as they are on the cluster."""
    moved = {place.setting: place.path for place in place_run("serve", run, storage)}
    serving = run.serving
    changes = {
        **{
            name: moved.get(f"serving.{name}", getattr(serving, name))
            for name in ("model", "keys", "audit", "tls_certificate", "tls_key")
        },
        "models": {name: moved.get(f"serving.models.{name}", at) for name, at in serving.models.items()},
        "adapters": {
            name: moved.get(f"serving.adapters.{name}", at) for name, at in serving.adapters.items()
        },
    }
    root = moved.get("root", run.root)
    return run.model_copy(update={"root": root, "serving": serving.model_copy(update=changes)})
