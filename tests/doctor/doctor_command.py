"""The command `asclepius doctor`, as a user says it."""

import os
import subprocess
import sys
from pathlib import Path

from command_here import run_here

PROJECT = Path(__file__).resolve().parents[2]
RUN_FILE = "jobs/runs/quickstart.toml"


def examine(*arguments: str) -> tuple[int, list[str]]:
    """Says the command within this process, on the Ray that it is connected to."""
    code, said, _ = run_here("doctor", *arguments)
    return code, said.splitlines()


def examine_at(address: str, *arguments: str) -> tuple[int, list[str]]:
    """Says the command on the cluster; its exit code and the lines of its standard output."""
    ended = subprocess.run(
        [sys.executable, "-m", "asclepius_ray.cli", "doctor", *arguments],
        cwd=PROJECT,
        env={**os.environ, "RAY_ADDRESS": address},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert "Traceback" not in ended.stderr, ended.stderr[-3000:]
    return ended.returncode, ended.stdout.splitlines()


def sets(**settings: object) -> list[str]:
    return [
        part for name, value in settings.items() for part in ("--set", f"{name.replace('__', '.')}={value}")
    ]


def line_of(lines: list[str], subject: str) -> str:
    found = [line for line in lines if line[9:].startswith(subject)]
    assert len(found) == 1, lines
    return found[0]
