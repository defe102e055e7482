"""Words that stand for a patient's text in tests: whoever finds one in a log has found a leak."""

import os
import tempfile
from pathlib import Path

CANARIES = ("kryptonithemia", "zyqcanary", "zebracanary", "zebrafinch")
"""In lower case; every test whose text must stay out of logs uses one of them."""


def leaking_files(folder: Path) -> list[str]:
    """The files below the folder that hold one of the words, in any case; never the line itself."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]
    return [leak for path in paths for leak in leaks_of(path)]


def leaks_of(path: Path) -> list[str]:
    """The words that stand in the file."""
    content = path.read_bytes().lower()
    return [f"{path.name}: {word}" for word in CANARIES if word.encode() in content]


def leaks_since(started_unix: float, scratch: Path) -> list[str]:
    """The logs of every Ray cluster that was up since then, and of every process with its log in `scratch`,
    that hold one of the words: the leaks of a whole run of tests."""
    ray_folder = Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir())) / "ray"
    sessions = [
        folder
        for folder in sorted(ray_folder.glob("session_*/logs"))
        if not folder.parent.is_symlink() and folder.stat().st_mtime >= started_unix
    ]
    own = [path for path in sorted(scratch.rglob("*")) if _is_log(path)]
    found = [f"{folder.parent.name}/{leak}" for folder in sessions for leak in leaking_files(folder)]
    return found + [f"{path.parent.name}/{leak}" for path in own for leak in leaks_of(path)]


def _is_log(path: Path) -> bool:
    is_named_so = path.name == "log" or path.suffix in (".log", ".out", ".err")
    return is_named_so and path.is_file() and not path.is_symlink()
