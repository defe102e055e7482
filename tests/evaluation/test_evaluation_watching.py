"""What an evaluation shows of itself costs nothing where it cannot be written."""

import asyncio
import time
from pathlib import Path

import pytest

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import ConfigError
from asclepius_ray.evaluation.metrics import Tally
from asclepius_ray.evaluation.status import STATUS_NAME
from asclepius_ray.evaluation.watching import watching


def test_a_status_that_cannot_be_written_ends_no_evaluation(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    cannot_be_opened, cannot_be_written = Folder("s3://runs/x?nonsense=1"), Folder(str(tmp_path / "file"))
    with pytest.raises(ConfigError):
        cannot_be_opened.write_bytes(STATUS_NAME, b"")
    with pytest.raises(OSError, match=r".+"):
        cannot_be_written.write_bytes(STATUS_NAME, b"")

    async def watch(root: Folder) -> None:
        async with watching(root, Tally(1, time.time()), {}):
            await asyncio.sleep(0.05)

    for root in (cannot_be_opened, cannot_be_written):
        asyncio.run(watch(root))
