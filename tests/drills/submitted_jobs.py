"""Jobs that `asclepius submit` sends to a cluster, and their logs as it follows them."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from local_heads import Head

PROJECT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a-token-made-for-this-drill"}


def submit(
    head: Head, job: str, root: Path | str, *overrides: str, shared: Sequence[Path] = ()
) -> subprocess.Popen[str]:
    """Starts the command; `shared` are the folders that all nodes mount."""
    sets = [part for override in (f"root={root}", *overrides) for part in ("--set", override)]
    command = [
        *(BIN / "asclepius", "submit", job, "jobs/runs/quickstart.toml", "--address", head.address),
        *(part for folder in shared for part in ("--shared", folder)),
        *sets,
    ]
    return subprocess.Popen(
        command,
        cwd=PROJECT,
        env=head.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for_line(process: subprocess.Popen[str], text: str) -> str:
    """What was said up to that line."""
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if text in line:
            return seen
    raise AssertionError(seen)
