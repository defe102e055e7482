"""What `--to` names: a repository of the Hugging Face hub, or a folder or URI. Pure."""

import re
from dataclasses import dataclass

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import ConfigError

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_FOLDER_STARTS = ("/", "./", "../", "~")


@dataclass(frozen=True)
class Repository:
    """`OWNER/NAME`: the dataset's and the model's repositories may share it, they live apart on the hub."""

    name: str


def parse_destination(to: str) -> Repository | Folder:
    """The place that `to` names; a ConfigError says how each kind is written."""
    if "://" in to or to.startswith(_FOLDER_STARTS) or to in (".", ".."):
        return Folder(to)
    if _REPOSITORY.fullmatch(to):
        return Repository(to)
    raise ConfigError(
        f"--to {to!r} is neither a Hugging Face repository (OWNER/NAME) nor a place for files: write a "
        "folder as ./FOLDER or /FOLDER, a bucket as s3://BUCKET/PREFIX"
    )
