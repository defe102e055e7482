"""bespoke curator in a virtual environment of its own, outside of the tree: made at its first use."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

VERSION = "0.1.31"
PACKAGE = "bespokelabs-curator"
_CHECK = f"import importlib.metadata as found; assert found.version({PACKAGE!r}) == {VERSION!r}"


def curator_python() -> Path:
    """Its interpreter; the test is skipped where it cannot be installed."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    environment = cache / "asclepius-ray" / "bench-curator"
    python = environment / "bin" / "python"
    if python.exists() and subprocess.run([python, "-c", _CHECK], capture_output=True).returncode == 0:
        return python
    for command in (
        [sys.executable, "-m", "venv", str(environment)],
        [str(python), "-m", "pip", "install", "-q", f"{PACKAGE}=={VERSION}"],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no word"])[-1]
            pytest.skip(f"{PACKAGE} {VERSION} cannot be installed with pip: {last}")
    return python
