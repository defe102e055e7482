"""Prometheus' own tool, which parses expressions and evaluates rules over invented series."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[2]
RULES = PROJECT / "cluster" / "prometheus" / "rules.yaml"
RULES_NAME = "rules.yml"


def promtool(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Its result in that folder; a test is skipped where it is not installed."""
    command = shutil.which("promtool")
    if command is None:
        pytest.skip("there is no promtool here (apt-get install prometheus)")
    return subprocess.run([command, *arguments], cwd=folder, capture_output=True, text=True, timeout=60)


def write_rules(folder: Path) -> None:
    """The rules as Prometheus itself reads them: what the operator takes out of its resource."""
    spec = yaml.safe_load(RULES.read_text())["spec"]
    (folder / RULES_NAME).write_text(yaml.safe_dump(spec))
