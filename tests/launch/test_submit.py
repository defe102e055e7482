"""Submitting to real heads, started as a user starts them."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from local_buckets import local_bucket
from local_heads import Head, Said, breaking_port
from ray.job_submission import JobSubmissionClient
from typer.testing import CliRunner

from asclepius_ray.artifacts import Folder
from asclepius_ray.cli import app
from asclepius_ray.errors import ConfigError, SubmitError
from asclepius_ray.launch.driver_resources import read_driver_resources
from asclepius_ray.launch.remote import (
    Node,
    Versions,
    check_versions,
    connect,
    describe_spread,
    list_nodes,
    own_versions,
    read_versions,
)
from asclepius_ray.launch.submit import Submission, submit_job

pytestmark = pytest.mark.whole

# What the command line does, in a process of its own: Ray reads its token once a process.
COMMAND = """
import sys
from pathlib import Path
from asclepius_ray.errors import AsclepiusError
from asclepius_ray.launch.submit import Submission, submit_job
project, job, run_file, address, *overrides = sys.argv[1:]
def say(line):
    sys.stdout.write(line + "\\n")
    sys.stdout.flush()
try:
    sys.exit(submit_job(Submission(job, run_file, address, tuple(overrides)), say, Path(project)))
except AsclepiusError as error:
    say(f"{type(error).__name__}: {error}")
    sys.exit(error.exit_code)
"""


def _command(project: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-c", COMMAND, str(project), *arguments]


def _jobs(address: str) -> list[str]:
    return [job.submission_id for job in JobSubmissionClient(address).list_jobs()]


def test_a_job_runs_in_its_package_its_log_is_followed_and_its_exit_code_returned(
    open_head: Head, project: Path, write_run: Callable[..., str], said: Said
) -> None:
    overrides = ("synthesis.workers=3", "name=it's $HOME")
    submission = Submission("pipeline", write_run("fails-lines-25"), open_head.address, overrides)
    assert submit_job(submission, said, project) == 7
    assert "package: 6 files, 0.00 MB" in said.lines
    assert "arguments --set synthesis.workers=3 --set name=it's $HOME" in said.lines
    assert "code from True" in said.lines
    assert "stop time 600" in said.lines
    assert [line for line in said.lines if line.startswith("line ")] == [f"line {n}" for n in range(25)]
    assert said.lines[-1].endswith("has failed")


def test_a_run_file_in_a_bucket_travels_in_the_package(
    open_head: Head, project: Path, write_run: Callable[..., str], said: Said
) -> None:
    with local_bucket("run-files") as uri:
        Folder(uri.format("")).write_bytes("any.toml", Path(write_run("stored-lines-1")).read_bytes())
        submission = Submission("train", uri.format("any.toml"), open_head.address)
        assert submit_job(submission, said, project) == 0
    assert "name stored-lines-1" in said.lines
    assert "endpoint_override" not in said.text


def test_a_dry_run_says_what_would_be_sent_and_sends_nothing(
    open_head: Head,
    project: Path,
    write_run: Callable[..., str],
    said: Said,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TEACHER_KEY", "a-secret-key")
    before = _jobs(open_head.address)
    run_file = write_run("dry", root="runs/dry", more="[serving]\napi_key_env = 'TEACHER_KEY'")
    submission = Submission("pipeline", run_file, open_head.address, ("seed=4",), dry_run=True)
    assert submit_job(submission, said, project) == 0
    assert (
        f"would run: python jobs/pipeline.py run.toml --set seed=4 --set root={tmp_path}/runs/dry"
        in said.text
    )
    assert "TEACHER_KEY is read from the environment of the cluster's nodes" in said.text
    assert "a-secret-key" not in said.text
    assert "6 files" in said.lines[0]
    assert "nothing was sent" in said.lines[-1]
    assert _jobs(open_head.address) == before


def test_the_driver_takes_what_was_asked_for_it(
    open_head: Head, project: Path, write_run: Callable[..., str], said: Said
) -> None:
    driver = read_driver_resources(1.0, 0.0, 100_000_000, "")
    run_file = write_run("driver-lines-1")
    options = ["--entrypoint-num-cpus", "1", "--entrypoint-memory", "100000000"]
    options += ["--entrypoint-num-gpus", "0.5", "--entrypoint-resources", '{"driver": 2}', "--dry-run"]
    dry = CliRunner().invoke(app, ["submit", "train", run_file, "--address", open_head.address, *options])
    assert dry.exit_code == 0, dry.output
    taken = "1 CPUs, 0.5 GPUs, 100000000 bytes of memory, 2 of driver"
    assert f"the driver takes {taken}, on a node that has it" in " ".join(dry.output.split())
    sent = Submission("train", run_file, open_head.address, driver=driver)
    assert submit_job(sent, said, project) == 0
    assert _taken_by_the_last_driver(open_head.address) == {"CPU": 1.0, "memory": 100_000_000.0}
    assert submit_job(Submission("train", run_file, open_head.address), said, project) == 0
    assert _taken_by_the_last_driver(open_head.address) == {}


def _taken_by_the_last_driver(address: str) -> dict[str, float]:
    last = max(JobSubmissionClient(address).list_jobs(), key=lambda job: job.start_time).submission_id
    answer = httpx.get(f"{address}/api/v0/actors", params={"detail": 1}).json()
    (found,) = [actor for actor in answer["data"]["result"]["result"] if actor["name"].endswith(last)]
    taken: dict[str, float] = found["required_resources"]
    return taken


@pytest.mark.parametrize("text", ["driver=1", "[1]", '{"driver": -1}', '{"driver": true}', '{"driver": "1"}'])
def test_resources_of_the_driver_that_are_no_amounts_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--entrypoint-resources"):
        read_driver_resources(0.0, 0.0, 0, text)
    with pytest.raises(ConfigError, match="--entrypoint-num-cpus is -1"):
        read_driver_resources(-1.0, 0.0, 0, "")
    assert read_driver_resources(0.0, 0.0, 0, '{"driver": 1}').said == "1 of driver"


def test_a_broken_connection_to_the_log_is_taken_up_again_and_no_line_is_said_twice(
    open_head: Head, project: Path, write_run: Callable[..., str], said: Said
) -> None:
    with breaking_port(open_head.address, b"line 5\n") as address:
        assert submit_job(Submission("train", write_run("cut-lines-40"), address), said, project) == 0
    assert [line for line in said.lines if line.startswith("line ")] == [f"line {n}" for n in range(40)]


def test_an_explicit_address_is_not_overruled_by_the_environment(
    open_head: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:9")
    assert connect(open_head.address).get_address() == open_head.address


def test_the_versions_and_nodes_of_a_cluster_are_read(open_head: Head) -> None:
    client = connect(open_head.address)
    assert read_versions(client, open_head.address) == own_versions()
    assert list_nodes(client, open_head.address) == [Node(num_cpus=2)]


def test_a_head_that_takes_no_work_counts_as_several_nodes() -> None:
    assert describe_spread([Node(num_cpus=2)]) == ""
    assert "nodes that are yet to come" in describe_spread([Node(num_cpus=0)])
    assert describe_spread([Node(num_cpus=2), Node(num_cpus=2)]) == "the cluster has 2 nodes"


def test_with_the_right_token_a_job_runs_and_ctrl_c_leaves_it_running(
    guarded_head: Head, project: Path, write_run: Callable[..., str]
) -> None:
    command = _command(project, "train", write_run("sleeps"), guarded_head.address)
    process = subprocess.Popen(command, env=guarded_head.environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line == "sleeping\n":
            break
    process.send_signal(signal.SIGINT)
    said = process.stdout.read()
    assert process.wait(timeout=60) == 130
    job_id = said.split("the job ")[1].split(" goes on")[0]
    assert f"ray job stop --address {guarded_head.address} {job_id}" in said
    headers = {"Authorization": f"Bearer {guarded_head.environment['RAY_AUTH_TOKEN']}"}
    job = httpx.get(f"{guarded_head.address}/api/jobs/{job_id}", headers=headers).json()
    assert job["status"] == "RUNNING"


@pytest.mark.parametrize(
    ("authentication", "trouble"),
    [
        ({"RAY_AUTH_MODE": "disabled"}, "ours is missing"),
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "another-token"}, "ours is not the cluster's"),
    ],
    ids=["no token", "wrong token"],
)
def test_a_missing_or_wrong_token_is_said_in_one_line(
    guarded_head: Head,
    project: Path,
    write_run: Callable[..., str],
    authentication: dict[str, str],
    trouble: str,
) -> None:
    command = _command(project, "train", write_run(), guarded_head.address)
    environment = guarded_head.environment | authentication | {"HOME": str(project)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith("SubmitError: ")
    assert trouble in line
    assert "a-token-made-for-this-test" not in done.stdout + done.stderr


def test_a_local_root_is_refused_on_a_cluster_of_two_nodes(
    guarded_head: Head, project: Path, write_run: Callable[..., str]
) -> None:
    command = _command(project, "train", write_run(root="/scratch/run"), guarded_head.address)
    done = subprocess.run(command, env=guarded_head.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "root = '/scratch/run' is a local path, and the cluster has 2 nodes" in done.stdout


def test_another_ray_version_is_refused_before_anything_is_sent(
    project: Path, write_run: Callable[..., str], said: Said
) -> None:
    with _dashboard_of_version("2.55.0") as (address, requests):
        with pytest.raises(SubmitError, match=r"runs Ray 2\.55\.0, and this environment has Ray 2\.60\.0"):
            submit_job(Submission("train", write_run(), address), said, project)
        assert requests
        assert {method for method, _ in requests} == {"GET"}


def test_a_python_that_differs_in_its_minor_version_is_refused_and_a_patch_is_not() -> None:
    ours = Versions("2.60.0", "3.11.7")
    with pytest.raises(SubmitError, match=r"Python 3\.12\.1, and this environment has Python 3\.11\.7"):
        check_versions(ours, Versions("2.60.0", "3.12.1"), "http://cluster:8265")
    check_versions(ours, Versions("2.60.0", "3.11.9"), "http://cluster:8265")


def test_a_wrong_run_file_is_refused_before_the_cluster_is_asked(
    project: Path, write_run: Callable[..., str], said: Said
) -> None:
    submission = Submission("train", write_run(more="sead = 3"), "http://127.0.0.1:9")
    with pytest.raises(ConfigError, match="sead: there is no such setting"):
        submit_job(submission, said, project)


@pytest.mark.parametrize(
    "setting", ["teacher.headers.x-key=%s", "teacher={base_url='offline', headers={k='%s'}}"]
)
def test_a_header_is_not_put_on_a_command_line_that_the_dashboard_shows(
    project: Path, write_run: Callable[..., str], said: Said, setting: str
) -> None:
    overrides = (setting % "a-secret-key",)
    with pytest.raises(ConfigError, match="write it into the run file") as caught:
        submit_job(Submission("train", write_run(), "http://127.0.0.1:9", overrides), said, project)
    assert "a-secret-key" not in str(caught.value)


@pytest.mark.parametrize(
    "setting", ["root=s3://bucket/headers-1", "serving.models.headers=s3://bucket/model"]
)
def test_a_place_that_is_called_after_headers_is_none(
    project: Path, write_run: Callable[..., str], said: Said, setting: str
) -> None:
    with pytest.raises(SubmitError, match="no Ray dashboard can be reached"):
        submit_job(Submission("train", write_run(), "http://127.0.0.1:9", (setting,)), said, project)


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "http://no-such-host.invalid:8265"])
def test_an_address_that_nobody_answers_is_said(
    project: Path, write_run: Callable[..., str], said: Said, address: str
) -> None:
    with pytest.raises(SubmitError, match="no Ray dashboard can be reached at"):
        submit_job(Submission("train", write_run(), address), said, project)


def test_an_address_without_its_scheme_is_refused(
    project: Path, write_run: Callable[..., str], said: Said
) -> None:
    with pytest.raises(SubmitError, match="not the address of a Ray dashboard"):
        submit_job(Submission("train", write_run(), "10.0.0.1:6379"), said, project)


def test_a_server_that_is_no_dashboard_is_said(
    project: Path, write_run: Callable[..., str], said: Said
) -> None:
    with (
        _dashboard_of_version("") as (address, _),
        pytest.raises(SubmitError, match="does not answer as a Ray dashboard"),
    ):
        submit_job(Submission("train", write_run(), address), said, project)


@contextmanager
def _dashboard_of_version(version: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """A server that says its Ray version as a dashboard does; "" = it knows nothing of Ray."""
    requests: list[tuple[str, str]] = []

    class Answers(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            requests.append((self.command, self.path))
            known = version and self.path.startswith("/api/")
            body = json.dumps({"ray_version": version, "data": {"pythonVersion": "3.9.1"}}).encode()
            self.send_response(200 if known else 404)
            self.end_headers()
            self.wfile.write(body if known else b"not here")

        do_GET = do_PUT = do_POST = _answer

        def log_message(self, format: str, *args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        server.server_close()
