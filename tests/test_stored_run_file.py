"""A run file in a bucket, read over the real S3 protocol."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from local_buckets import local_bucket

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import ConfigError
from asclepius_ray.run import load_run

PROJECT = Path(__file__).resolve().parents[1]
QUICKSTART = PROJECT / "jobs" / "runs" / "quickstart.toml"


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The bucket's URI, with {} for the path in it; it holds quickstart.toml and files that are none."""
    with local_bucket("run-files") as uri:
        folder = Folder(uri.format("runs"))
        folder.write_bytes("quickstart.toml", QUICKSTART.read_bytes())
        folder.write_bytes("broken.toml", b"a = [")
        folder.write_bytes("binary.toml", b"\xff\xfe")
        yield uri


@pytest.fixture
def closed_bucket(bucket: str) -> Iterator[str]:
    """The same bucket while it knows nobody."""
    place = bucket.partition("endpoint_override=")[2].partition("&")[0]
    address = f"http://{place}/moto-api/reset-auth"
    httpx.post(address, content=b"0").raise_for_status()
    yield bucket
    httpx.post(address, content=b"inf").raise_for_status()


def test_a_run_file_in_a_bucket_reads_as_the_same_file_here(bucket: str) -> None:
    stored = load_run(bucket.format("runs/quickstart.toml"), ["seed=7"])
    assert stored == load_run(str(QUICKSTART), ["seed=7"])


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("none.toml", "there is no run file s3://run-files/runs/none.toml;"),
        ("broken.toml", "the run file s3://run-files/runs/broken.toml is not valid TOML"),
        (
            "binary.toml",
            "the run file s3://run-files/runs/binary.toml cannot be read: it is no text in UTF-8",
        ),
    ],
)
def test_what_is_no_run_file_is_said_without_the_address_s_query(
    bucket: str, name: str, complaint: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_run(bucket.format(f"runs/{name}"))
    assert complaint in str(caught.value)
    assert "endpoint_override=1" not in str(caught.value)


def test_who_may_not_read_it_is_told_how_to_get_the_right(closed_bucket: str) -> None:
    with pytest.raises(ConfigError, match=r"s3://run-files/runs/quickstart\.toml cannot be read: access is"):
        load_run(closed_bucket.format("runs/quickstart.toml"))


@pytest.mark.parametrize("scheme", ["s3", "gs", "https"])
@pytest.mark.parametrize("key", ["AKIA0:secret-value@", "AKIA0:7secret-value/of/parts@", "AKIA0@"])
def test_a_key_in_the_address_is_refused_and_not_repeated(scheme: str, key: str) -> None:
    with pytest.raises(ConfigError, match="has a key before the @") as caught:
        load_run(f"{scheme}://{key}bucket/run.toml?x=secret-value")
    assert "secret-value" not in str(caught.value)
    assert "AKIA0" not in str(caught.value)


def test_an_address_of_no_bucket_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"local paths, s3:// and gs:// addresses are known"):
        load_run("https://example.com/run.toml")


def test_a_job_s_page_takes_the_address(bucket: str) -> None:
    address = bucket.format("runs/quickstart.toml")
    command = [sys.executable, "jobs/train.py", address, "--set", "training.workers=many"]
    ended = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, env=os.environ.copy())
    assert ended.returncode == 2
    assert "the run file s3://run-files/runs/quickstart.toml has 1 wrong setting(s)" in ended.stderr
    assert "training.workers" in ended.stderr


def test_reading_it_needs_neither_ray_nor_torch(bucket: str) -> None:
    code = (
        "import sys; from asclepius_ray.run import load_run; "
        f"print(load_run({bucket.format('runs/quickstart.toml')!r}).name); "
        "print([name for name in ('ray', 'torch', 'deepspeed', 'openai') if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines() == ["quickstart", "[]"]
