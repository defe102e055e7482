"""The folder of a run, made and tried before anything else."""

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import ConfigError


def make_root(root: Folder) -> None:
    """Makes the run's folder and proves that it can be written; a ConfigError says why it cannot."""
    probe = ".writable"
    try:
        root.make()
        root.write_bytes(probe, b"")
        root.delete(probe)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(
            f"the root {root.shown} cannot be written ({reason}); choose another with --set root=FOLDER"
        ) from None
