"""The command as a machine runs it: a process of its own, a metadata service, a raylet and a head."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

import pytest
from metadata_server import MetadataServer
from ray.core.generated import autoscaler_pb2
from ray_stand_ins import Head, raylet, serving
from typer.testing import CliRunner

from asclepius_ray.cli import app

SECRET = "a-token-made-for-this-test"
OPEN = {"RAY_AUTH_MODE": "disabled"}
GUARDED = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": SECRET}
WAIT_SECONDS = 60.0


class Command:
    """`asclepius drain-watch`, and what it says; always with a node's id, so that it drains nobody else's."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        self.process = process
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, args=(process.stdout,), daemon=True)
        self._reader.start()

    def await_line(self, words: str) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while not any(words in line for line in self.lines):
            assert time.monotonic() < deadline, self.lines
            assert self._reader.is_alive(), self.lines
            time.sleep(0.02)

    def end(self) -> int:
        """Waits for its end; its exit code."""
        code = self.process.wait(WAIT_SECONDS)
        self._reader.join()
        return code

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self.lines.append(line.rstrip())


@contextmanager
def drain_watch(node_id: str, environment: dict[str, str], *options: str) -> Iterator[Command]:
    process = subprocess.Popen(
        [sys.executable, "-m", "asclepius_ray.cli", "drain-watch", "--node", node_id, *options],
        env=os.environ | {"PYTHONUNBUFFERED": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield Command(process)
    finally:
        process.kill()
        process.wait()


def instance_action(seconds: float) -> str:
    moment = datetime.now(UTC) + timedelta(seconds=seconds)
    return f'{{"action": "terminate", "time": "{moment:%Y-%m-%dT%H:%M:%SZ}"}}'


def test_a_notice_of_aws_s_reaches_ray_with_token_kind_and_time(service: MetadataServer) -> None:
    head = Head(SECRET)
    options = ("--provider", "aws", "--address", service.address, "--poll-seconds", "0.2")
    with serving(head) as gcs, raylet(gcs) as node, drain_watch(node.node_id, GUARDED, *options) as command:
        command.await_line("watching for notices of aws")
        noticed = time.time()
        service.put("instance-action", instance_action(100))
        command.await_line("Ray drains the node")
        service.expire_token()
        node.end()
        assert command.end() == 0
    (request,) = head.requests
    assert request.node_id.hex() == node.node_id
    assert request.reason == autoscaler_pb2.DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION
    assert request.reason_message == "spot interruption"
    assert 98 < request.deadline_timestamp_ms / 1000 - noticed < 103
    assert [line.split(" ", 1)[1].split()[0] for line in command.lines] == [
        "watching",
        "notice",
        "Ray",
        "drained:",
    ]
    assert "terminate" not in "".join(command.lines)


def test_a_preemption_of_gcp_s_reaches_ray_without_a_token_while_the_cloud_was_not_named(
    service: MetadataServer,
) -> None:
    head = Head()
    service.clouds = {"gcp"}
    options = ("--address", service.address, "--poll-seconds", "30")
    with serving(head) as gcs, raylet(gcs) as node, drain_watch(node.node_id, OPEN, *options) as command:
        # The first look finds the cloud, the second one the value; the third one waits.
        deadline = time.monotonic() + WAIT_SECONDS
        while service.asked.count("GET /computeMetadata/v1/instance/preempted") < 3:
            assert time.monotonic() < deadline, command.lines
            time.sleep(0.02)
        noticed = time.time()
        service.put("preempted", "TRUE")
        command.await_line("Ray drains the node")
        node.end()
        assert command.end() == 0
    (request,) = head.requests
    assert 25 < request.deadline_timestamp_ms / 1000 - noticed < 35
    assert request.reason_message == "preemption"


def test_a_pod_s_hook_drains_at_once_asks_no_cloud_and_ends_at_its_grace(service: MetadataServer) -> None:
    head = Head()
    options = ("--now", "--grace-seconds", "2", "--address", service.address)
    with serving(head) as gcs, raylet(gcs) as node, drain_watch(node.node_id, OPEN, *options) as command:
        assert command.end() == 0
    assert len(head.requests) == 1
    assert service.asked == []
    assert command.lines[-1].endswith("the time has come; Ray nodes that still run here: 1")


def test_a_pod_s_hook_where_no_ray_runs_has_nothing_to_do() -> None:
    with drain_watch("00" * 28, OPEN, "--now") as command:
        assert command.end() == 0
    assert command.lines == ["no Ray node runs here: there is nothing to drain"]


def test_a_head_that_comes_back_is_told() -> None:
    head = Head()
    with serving(head) as gcs:
        pass
    with raylet(gcs) as node, drain_watch(node.node_id, OPEN, "--now", "--grace-seconds", "40") as command:
        command.await_line("its head cannot be reached")
        with serving(head, int(gcs.rpartition(":")[2])):
            command.await_line("Ray drains the node")
            node.end()
            assert command.end() == 0
    assert len(head.requests) == 1


def test_a_head_that_hangs_is_asked_again() -> None:
    head = Head()
    head.hang.set()
    options = ("--now", "--grace-seconds", "40")
    with serving(head) as gcs, raylet(gcs) as node, drain_watch(node.node_id, OPEN, *options) as command:
        command.await_line("its head does not answer in time")
        head.hang.clear()
        command.await_line("Ray drains the node")
        node.end()
        assert command.end() == 0


def test_token_authentication_without_a_token_is_told_as_such(tmp_path: Path) -> None:
    environment = {"RAY_AUTH_MODE": "token", "HOME": str(tmp_path)}
    options = ("--now", "--grace-seconds", "2")
    with (
        serving(Head()) as gcs,
        raylet(gcs) as node,
        drain_watch(node.node_id, environment, *options) as command,
    ):
        assert command.end() == 1
    assert "there is no token" in " ".join(command.lines)


@pytest.mark.parametrize(
    "environment", [GUARDED | {"RAY_AUTH_TOKEN": "another"}, OPEN], ids=["another token", "no token"]
)
def test_a_head_that_refuses_the_token_is_an_error_that_shows_neither(environment: dict[str, str]) -> None:
    head = Head(SECRET)
    options = ("--now", "--grace-seconds", "2")
    with (
        serving(head) as gcs,
        raylet(gcs) as node,
        drain_watch(node.node_id, environment, *options) as command,
    ):
        assert command.end() == 1
    assert head.requests == []
    said = " ".join(command.lines)
    assert "refuses the token" in said
    assert "Ray was not told before the time" in said
    assert not any(hidden in said for hidden in (SECRET, "another", "nobody may read"))


def test_sigterm_ends_the_watch_in_order(service: MetadataServer) -> None:
    options = ("--address", service.address, "--poll-seconds", "0.2")
    with drain_watch("00" * 28, OPEN, *options) as command:
        command.await_line("watching for notices of aws")
        command.process.send_signal(signal.SIGTERM)
        assert command.end() == 130
    assert "the watch has been stopped" in command.lines[-1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--provider", "azure"], "--provider 'azure': it takes aws, gcp, auto"),
        (["--provider", "gcp", "--rebalance"], "gcp gives no such recommendations"),
        (["--now", "--provider", "aws"], "--now asks no cloud"),
        (["--now", "--rebalance"], "--now asks no cloud"),
        (["--address", "169.254.169.254"], "--address '169.254.169.254' is no address"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_the_command_cannot_take_is_refused_by_name(options: list[str], words: str) -> None:
    ended = CliRunner().invoke(app, ["drain-watch", "--node", "00" * 28, *options])
    assert ended.exit_code == 2
    assert words in ended.stderr
