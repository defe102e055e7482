"""The metric lines: whole after a kill, those of lost steps gone, in a folder as in a bucket."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from asclepius_ray import metric_log
from asclepius_ray.artifacts import Folder
from asclepius_ray.metric_log import METRICS_NAME, MetricLog, join_segments, read_metrics

LINE_BYTES = len('{"step": 100}\n')
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """A bucket over the real S3 protocol."""
    import boto3

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        patch.setenv("NO_PROXY", host)
        boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket="runs")
        yield f"?scheme=http&endpoint_override={host}:{port}&allow_bucket_creation=true"
    server.stop()


@pytest.fixture(params=["folder", "bucket"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """Both with segments of three lines, so that a few of them are many segments."""
    monkeypatch.setattr(metric_log, "SEGMENT_BYTES", 3 * LINE_BYTES)
    if request.param == "folder":
        return Folder(str(tmp_path))
    query = request.getfixturevalue("bucket")
    return Folder(f"s3://runs/{tmp_path.name}{query}")


def write(folder: Folder, position: int, steps: range) -> MetricLog:
    """Goes on behind so many lines."""
    log = MetricLog(folder, position * LINE_BYTES)
    for step in steps:
        log.append({"step": step + 100})
    return log


def steps_in(folder: Folder) -> list[int]:
    return [line["step"] - 100 for line in read_metrics(folder)]


@pytest.mark.parametrize("num_lines", [0, 1, 3, 4, 7])
def test_what_is_synced_is_there_for_whoever_comes_next(folder: Folder, num_lines: int) -> None:
    log = write(folder, 0, range(num_lines))
    log.sync()
    # It is neither closed nor ended: a killed process does neither.
    assert steps_in(folder) == list(range(num_lines))
    assert log.position == num_lines * LINE_BYTES


@pytest.mark.parametrize("position", [0, 1, 2, 3, 5, 6, 8])
def test_lines_behind_the_checkpoint_are_gone_and_its_own_are_kept(folder: Folder, position: int) -> None:
    write(folder, 0, range(8)).sync()
    with write(folder, position, range(500, 505)) as log:
        assert log.missing == 0
        assert log.position == (position + 5) * LINE_BYTES
    assert steps_in(folder) == [*range(position), *range(500, 505)]


def test_what_a_bucket_did_not_take_is_sent_the_next_time(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader sees it later; training goes on meanwhile."""
    monkeypatch.setattr(metric_log, "UPLOAD_SECONDS", 0.0)
    folder = Folder(f"s3://runs/{tmp_path.name}{bucket}")
    log = write(folder, 0, range(1))
    with monkeypatch.context() as patch:
        patch.setattr(Folder, "write_bytes", refuse)
        log.append({"step": 101})
    assert steps_in(folder) == [0]
    log.append({"step": 102})
    assert steps_in(folder) == [0, 1, 2]


def refuse(*_: object) -> None:
    raise OSError("AWS Error SLOW_DOWN")


def test_lines_that_are_gone_are_counted(folder: Folder) -> None:
    write(folder, 0, range(4)).sync()
    with MetricLog(folder, 7 * LINE_BYTES) as log:
        assert (log.missing, log.position) == (3 * LINE_BYTES, 4 * LINE_BYTES)


def test_a_finished_training_has_one_file_and_can_go_on(folder: Folder) -> None:
    with write(folder, 0, range(8)):
        pass
    join_segments(folder)
    assert folder.names() == [METRICS_NAME]
    lines = folder.read_bytes(METRICS_NAME).splitlines()
    assert [json.loads(line) for line in lines] == [{"step": 100 + step} for step in range(8)]
    with write(folder, 5, range(50, 54)):
        pass
    assert steps_in(folder) == [*range(5), *range(50, 54)]
    join_segments(folder)
    join_segments(folder)
    assert folder.names() == [METRICS_NAME]
    assert steps_in(folder) == [*range(5), *range(50, 54)]


def test_a_join_that_was_cut_off_loses_no_line(folder: Folder) -> None:
    with write(folder, 0, range(8)):
        pass
    segments = {name: folder.read_bytes(name) for name in folder.names()}
    join_segments(folder)
    # Killed before the last segments were removed.
    for name in sorted(segments)[2:]:
        folder.write_bytes(name, segments[name])
    assert steps_in(folder) == [*range(8)]
    with write(folder, 8, range(8, 10)):
        pass
    assert steps_in(folder) == [*range(10)]


def test_a_torn_last_line_is_neither_read_nor_added_to(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    (tmp_path / METRICS_NAME).write_bytes(b'{"step": 100}\n{"step": 101}\n{"st')
    assert steps_in(folder) == [0, 1]
    with write(folder, 9, range(2, 3)) as log:
        assert log.position == 3 * LINE_BYTES
    assert steps_in(folder) == [0, 1, 2]


def test_one_more_line_in_a_bucket_sends_no_more_than_a_segment(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the training is: neither the file of all lines nor all segments are written again."""
    monkeypatch.setattr(metric_log, "SEGMENT_BYTES", 3 * LINE_BYTES)
    folder = Folder(f"s3://runs/{tmp_path.name}{bucket}")
    log = write(folder, 0, range(30))
    log.sync()
    before = folder.sizes()
    log.append({"step": 30})
    log.sync()
    after = folder.sizes()
    changed = [name for name in after if after[name] != before.get(name)]
    assert len(before) == 10
    assert changed == [f"metrics/{30 * LINE_BYTES:015d}.jsonl"]


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_figure_that_json_does_not_know_never_gets_into_the_lines(tmp_path: Path, value: float) -> None:
    with MetricLog(Folder(str(tmp_path)), 0) as log:
        log.append({"step": 1})
        with pytest.raises(ValueError, match="not JSON compliant"):
            log.append({"step": 2, "gradient_norm": value})
    assert read_metrics(Folder(str(tmp_path))) == [{"step": 1}]
