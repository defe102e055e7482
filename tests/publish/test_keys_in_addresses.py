"""Commands that are given a run's root with a key in its address, over the real S3 protocol."""

from collections.abc import Iterator

import pytest
from finished_run import write_run
from local_buckets import local_bucket
from typer.testing import CliRunner

from asclepius_ray.artifacts import Folder
from asclepius_ray.cli import app

KEY, SECRET = "AKIAZZNOTAKEY", "zzsecretofnobody"
COMMANDS = {
    "status": ["status", "ROOT"],
    "report": ["report", "ROOT"],
    "purge": ["purge", "ROOT"],
    "publish": ["publish", "ROOT", "--to", "OUT", "--dry-run"],
    "publish real notes": ["publish", "ROOT", "--to", "OUT"],
    "evaluate sheet": [
        "evaluate",
        "sheet",
        "ROOT",
        "--out",
        "OUT",
        "--raters",
        "a",
        "--items",
        "2",
        "--overlap",
        "1",
    ],
    "keys list": ["keys", "list", "ROOT"],
}

OF_WHOLE_RUNS = sorted(COMMANDS.keys() - {"report", "purge"})
"""What needs more of a run's columns than this one has is left out."""


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URI of a bucket with a finished run, a damaged one and one of real notes; {} for the path in it."""
    folder = tmp_path_factory.mktemp("runs")
    with local_bucket("runs") as uri:
        for name, kind in (("whole", "case_reports"), ("damaged", "case_reports"), ("notes", "notes")):
            write_run(folder / name, kind)
            Folder(uri.format(name)).upload(folder / name)
        for name in ("dataset/manifest.json", "lease.json", "keys.json"):
            Folder(uri.format("damaged")).write_bytes(name, b"{")
        yield uri.replace("s3://", f"s3://{KEY}:{SECRET}@")


@pytest.mark.parametrize(
    ("name", "root"),
    [
        *((name, root) for name in COMMANDS for root in ("damaged", "nothing")),
        *((name, root) for name in OF_WHOLE_RUNS for root in ("whole", "notes")),
    ],
)
def test_no_command_repeats_a_key_that_stands_in_an_address(bucket: str, name: str, root: str) -> None:
    places = {"ROOT": bucket.format(root), "OUT": bucket.format("given")}
    done = CliRunner().invoke(app, [places.get(word, word) for word in COMMANDS[name]])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert "***@runs" in done.output or done.exit_code == 0, done.output
    for secret in (KEY, SECRET):
        assert secret not in done.output
