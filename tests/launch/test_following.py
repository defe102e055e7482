"""Following a job's log where connections go silent, break and come back, over real sockets."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from local_heads import Said
from silent_port import silent_port
from stand_in_dashboard import Dashboard, stand_in_dashboard

from asclepius_ray.errors import SubmitError
from asclepius_ray.launch import following, remote
from asclepius_ray.launch.following import follow_job
from asclepius_ray.launch.remote import connect
from asclepius_ray.launch.submit import Submission, submit_job

JOB = "raysubmit_1"
LOST_SECONDS = 1.2


@pytest.fixture(autouse=True)
def times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "LOST_SECONDS", LOST_SECONDS)
    monkeypatch.setattr(following, "SILENT_SECONDS", 0.3)
    monkeypatch.setattr(following, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(remote, "ANSWER_SECONDS", 0.5)


@pytest.fixture
def dashboard() -> Iterator[Dashboard]:
    with stand_in_dashboard() as dashboard:
        yield dashboard


class Following:
    """A job that is followed in a thread of its own, so that a test can see that it does not end."""

    def __init__(self, address: str) -> None:
        self.said = Said()
        self.code: int | None = None
        self.error: SubmitError | None = None
        self._thread = threading.Thread(target=self._follow, args=(address,), daemon=True)
        self._thread.start()

    def _follow(self, address: str) -> None:
        try:
            self.code = follow_job(connect(address), JOB, address, self.said)
        except SubmitError as error:
            self.error = error

    def wait_for(self, line: str) -> None:
        deadline = time.monotonic() + 10
        while line not in self.said.lines:
            assert time.monotonic() < deadline, self.said.text
            time.sleep(0.02)

    def end(self) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive(), "it is followed without end"


def test_a_head_that_vanishes_without_a_word_is_said_and_not_waited_for_without_end(
    dashboard: Dashboard,
) -> None:
    dashboard.log = "line 0\n"
    with silent_port(dashboard.address) as port:
        following = Following(port.address)
        following.wait_for("line 0")
        port.silence()
        following.end()
    assert "is lost, and the job raysubmit_1 may go on" in str(following.error)
    assert "ray job logs --follow" in str(following.error)
    assert following.said.lines == ["line 0"]


def test_a_job_is_followed_on_after_a_silence_and_no_line_is_said_twice(dashboard: Dashboard) -> None:
    dashboard.log = "line 0\nli"
    with silent_port(dashboard.address) as port:
        following = Following(port.address)
        following.wait_for("line 0")
        port.silence()
        dashboard.log += "ne 1\nline 2\n"
        dashboard.end("SUCCEEDED", 0)
        time.sleep(0.5)
        port.hear()
        following.end()
    assert following.code == 0, following.error
    assert following.said.lines == ["line 0", "line 1", "line 2", f"job {JOB} has succeeded"]


def test_a_job_that_says_nothing_for_long_is_followed_to_its_end(dashboard: Dashboard) -> None:
    dashboard.log = "line 0\n"
    following = Following(dashboard.address)
    time.sleep(2 * LOST_SECONDS)
    assert dashboard.num_log_connections > 2
    dashboard.log += "line 1\n"
    dashboard.end("FAILED", 7)
    following.end()
    assert following.code == 7
    assert following.said.lines == ["line 0", "line 1", f"job {JOB} has failed"]


def test_breaks_far_apart_are_no_lost_connection_though_nothing_is_said_between(dashboard: Dashboard) -> None:
    dashboard.log, dashboard.log_breaks_after_seconds = "line 0\n", 0.2
    following = Following(dashboard.address)
    time.sleep(2 * LOST_SECONDS)
    dashboard.end("SUCCEEDED", 0)
    following.end()
    assert following.code == 0, following.error
    assert dashboard.num_log_connections > 5
    assert following.said.lines == ["line 0", f"job {JOB} has succeeded"]


def test_a_log_that_cannot_be_read_is_said_once_and_the_result_is_still_the_jobs(
    dashboard: Dashboard,
) -> None:
    dashboard.log_is_readable = False
    following = Following(dashboard.address)
    time.sleep(2 * LOST_SECONDS)
    dashboard.end("FAILED", 5)
    following.end()
    assert following.code == 5
    unreadable, last = following.said.lines
    assert unreadable.startswith(f"the log of job {JOB} cannot be read (503")
    assert last == f"job {JOB} has failed"


def test_the_result_of_a_job_that_has_ended_does_not_wait_for_a_log_that_never_does(
    dashboard: Dashboard,
) -> None:
    dashboard.log, dashboard.log_ends = "line 0\nthe end", False
    dashboard.end("SUCCEEDED", 0)
    following = Following(dashboard.address)
    following.end()
    assert following.code == 0
    first, unreadable, rest, last = following.said.lines
    assert (first, rest, last) == ("line 0", "the end", f"job {JOB} has succeeded")
    assert "cannot be read" in unreadable


def test_a_job_that_the_cluster_does_not_know_any_more_is_said(dashboard: Dashboard) -> None:
    dashboard.log_breaks_after_seconds = 0.2
    dashboard.knows_the_job = False
    following = Following(dashboard.address)
    following.end()
    assert "its head was started anew" in str(following.error)


@pytest.mark.parametrize(("log", "word"), [("", "did not start"), ("line 0\n", "was lost")])
def test_a_job_without_an_exit_code_did_not_start_or_was_lost(
    dashboard: Dashboard, log: str, word: str
) -> None:
    dashboard.log, dashboard.message = log, "the supervisor died"
    dashboard.end("FAILED", None)
    following = Following(dashboard.address)
    following.end()
    assert following.code == 1
    assert following.said.lines[-1] == f"job {JOB} {word}: the supervisor died"


def test_a_job_whose_answer_is_lost_while_it_is_sent_is_found_by_its_name(
    dashboard: Dashboard, project: Path, write_run: Callable[..., str], said: Said
) -> None:
    dashboard.is_cut_while_sending = True
    dashboard.end("SUCCEEDED", 0)
    assert submit_job(Submission("train", write_run(), dashboard.address), said, project) == 0
    (sent,) = dashboard.sent
    assert said.lines[-1] == f"job {sent['submission_id']} has succeeded"


def test_a_job_that_was_cut_off_before_it_was_taken_is_refused(
    dashboard: Dashboard, project: Path, write_run: Callable[..., str], said: Said
) -> None:
    dashboard.is_cut_while_sending, dashboard.takes_jobs, dashboard.knows_the_job = True, False, False
    with pytest.raises(SubmitError, match="the cluster did not take the job"):
        submit_job(Submission("train", write_run(), dashboard.address), said, project)
    dashboard.is_cut_while_sending = False
    with pytest.raises(SubmitError, match=r"did not take the job: .*no room for it"):
        submit_job(Submission("train", write_run(), dashboard.address), said, project)


@pytest.mark.parametrize(("drain_seconds", "waited"), [(120, 600), (900.5, 961)])
def test_a_stop_waits_as_long_as_a_server_drains_and_a_training_saves(
    dashboard: Dashboard,
    project: Path,
    write_run: Callable[..., str],
    said: Said,
    drain_seconds: float,
    waited: int,
) -> None:
    dashboard.end("SUCCEEDED", 0)
    run_file = write_run(more=f"[serving]\ndrain_seconds = {drain_seconds}")
    submit_job(Submission("train", run_file, dashboard.address), said, project)
    (sent,) = dashboard.sent
    assert sent["runtime_env"]["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"] == str(waited)
