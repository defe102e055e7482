"""What a synthesis shows of itself costs nothing where it cannot be written."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from asclepius_ray.artifacts import Folder
from asclepius_ray.chat.desk_snapshot import DeskSnapshot
from asclepius_ray.errors import ConfigError
from asclepius_ray.progress import Progress
from asclepius_ray.synthesis import monitor
from asclepius_ray.synthesis.monitor import Monitor
from asclepius_ray.synthesis.status import STATUS_NAME

LOOKS = 5
SNAPSHOT = DeskSnapshot(
    steps={}, unsettled_usd=0.0, has_price=False, budget_usd=0.0, num_replayed=0, num_refusals=0,
    requests_per_minute=None, tokens_per_minute=None, num_in_flight=0, num_permits=1, num_waiting=0,
    num_workers=1, num_segments=0, num_damaged_records=0, why_waiting="", trouble=None,
)  # fmt: skip


@pytest.mark.parametrize("place", ["s3://runs/x?nonsense=1", "FILE/run"])
def test_a_status_that_cannot_be_written_ends_no_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "file").write_bytes(b"")
    root = Folder(place.replace("FILE", str(tmp_path / "file")))
    with pytest.raises((OSError, ConfigError)):
        root.write_bytes(STATUS_NAME, b"")
    looks: list[object] = []

    def answer(reference: DeskSnapshot, timeout: float) -> DeskSnapshot:
        looks.append(timeout)
        return reference

    # The desk's answer comes over Ray, and nothing here is about that way.
    monkeypatch.setattr(ray, "get", answer)
    monkeypatch.setattr(monitor, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(monitor, "WRITE_SECONDS", 0.0)
    desk: Any = SimpleNamespace(snapshot=SimpleNamespace(remote=lambda: SNAPSHOT))
    with Progress() as progress, Monitor(root, desk, progress, 1, 1):
        deadline = time.monotonic() + 10
        while len(looks) < LOOKS:
            assert time.monotonic() < deadline, "it looks no more"
            time.sleep(0.01)
