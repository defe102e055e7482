"""Where a journal may lie: on the disk, or in a bucket that speaks the real S3 protocol."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from local_buckets import local_bucket

from asclepius_ray.artifacts import Folder


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    with local_bucket("journals") as uri:
        yield uri


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    if request.param == "local":
        return Folder(str(tmp_path / "journal"))
    bucket = request.getfixturevalue("bucket")
    return Folder(bucket.format(f"{tmp_path.name}/journal"))
