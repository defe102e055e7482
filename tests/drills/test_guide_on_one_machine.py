"""The guide's commands for which Ray on one machine is enough, typed one after the other on one machine.

The machine is a host in namespaces, with addresses, processes, /tmp and a home of its own: `ray stop` ends
what is there and nothing else. The lines are typed as cluster/README.md has them and in its order, with a
job's id put in; `ray stop` alone waits for those that ask the cluster. What differs is the run file in the
copy of the project where they are typed: 16 reports, an epoch each, two questions to the models, and a
teacher by rules at an address, which fails some rows, keeps a job at work, or is well.
"""

import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from separate_hosts import HOME, Host, separate_hosts, why_no_hosts
from shell_on_host import Shell, Typed, shell_on, wait_until

sys.path.insert(0, str(Path(__file__).parents[1] / "cluster"))

from guide import lines_on_one_machine

from asclepius_ray.artifacts import Folder, is_finished, read_manifest
from asclepius_ray.chat.config import OFFLINE_MODEL
from asclepius_ray.chat.journal.journal import Journal
from asclepius_ray.chat.offline.faults import Faults
from asclepius_ray.chat.offline.server import OfflineTeacher

pytestmark = pytest.mark.long

PROJECT = Path(__file__).resolve().parents[2]
COPIED = ("asclepius_ray", "jobs", "LICENSE", "Makefile", "constraints.txt", "pyproject.toml")
COPY = "project"
RUN_FILE = "jobs/runs/quickstart.toml"
NUM_ROWS = 16
SMALLER = {
    "[input]": f"[input]\nlimit = {NUM_ROWS}",
    '[teacher]\nbase_url = "offline"': (
        f'[teacher]\nbase_url = "TEACHER"\nmodel = "{OFFLINE_MODEL}"\napi_key_env = ""'
    ),
    "[synthesis]": "[synthesis]\nmax_failed_share = 0.5",
    "epochs = 10": "epochs = 1",
    "epochs = 8": "epochs = 1",
    "[evaluation]": "[evaluation]\nlimit = 2",
}
"""Lines of the run file, and what stands in their place."""
FAILING = Faults(bad_request=0.1)
HANGING = Faults(hang=0.5)
"""Half of the calls have no end: the job has the others' answers, and is at work until it is stopped."""
ANSWERS_BEFORE_THE_STOP = 5
AT_WORK = f"synthesize 0/{NUM_ROWS}"
RAYS = ("raylet", "gcs_server", "dashboard", "ray::")


@dataclass(frozen=True)
class Walk:
    """What the commands have come to."""

    typed: list[str]
    """As the guide has them, in the order in which they were typed first."""
    said: dict[str, list[str]]
    """Line → what it has said, each time that it was waited for; all of these ended well."""
    disk: Path
    num_failed: int
    """Rows that `make quickstart` has left failed."""
    job_id: str
    stopped: Typed
    """The submission of the job that was stopped."""
    log: Typed
    """Of that job, followed meanwhile."""
    num_durable: int
    """Answers in its journal after the stop."""
    was_finished: bool
    """Whether it had made its dataset then."""
    bought: dict[int, int]
    """Prompt → its answers, until the stop."""
    bought_later: dict[int, int]
    left_running: list[str]
    """Processes of Ray, after `ray stop`."""
    exported: str
    """The environment, after the file of keys was read."""

    def words_of(self, beginning: str) -> list[str]:
        return self.said[in_guide(beginning)]

    def root(self, name: str) -> Folder:
        return Folder(str(self.disk / COPY / "runs" / name))


def copy_project(target: Path, base_url: str) -> None:
    """The files of a checkout, with a smaller run, and this environment as `.venv`."""
    target.mkdir(parents=True)
    for name in COPIED:
        if (PROJECT / name).is_dir():
            shutil.copytree(PROJECT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(PROJECT / name, target / name)
            # Older than the environment, which `make` would else make anew.
            os.utime(target / name, (0, 0))
    (target / ".venv").symlink_to(sys.prefix)
    text = (target / RUN_FILE).read_text()
    for lines, others in SMALLER.items():
        assert text.count(f"{lines}\n") == 1, f"{RUN_FILE} does not have {lines!r} once"
        text = text.replace(f"{lines}\n", f"{others}\n")
    (target / RUN_FILE).write_text(text.replace("TEACHER", base_url))


def why_not_here() -> str:
    if not (Path(sys.prefix) / ".runtime-installed").is_file():
        return "this environment was not made by `make`, which would make it anew"
    if not all(map(shutil.which, ("bash", "make", "openssl"))):
        return "bash, make and openssl are not all here"
    return why_no_hosts()


def environment_of_user() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    copy = HOME / COPY
    # No proxy stands between the host and its teacher, whatever this machine has.
    return {
        **kept,
        "PATH": f"{copy / '.venv' / 'bin'}{os.pathsep}{kept['PATH']}",
        # The project is installed here from a folder that the host does not see.
        "PYTHONPATH": str(copy),
        "NO_PROXY": "*",
        "no_proxy": "*",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


class Guide:
    """Types the guide's lines, each called by its beginning."""

    def __init__(self, shell: Shell) -> None:
        self.typed: list[str] = []
        self.said: dict[str, list[str]] = {}
        self._shell = shell

    def begin(self, beginning: str, job_id: str = "JOB_ID") -> Typed:
        """Types it as into a terminal of its own, and waits for nothing."""
        line = in_guide(beginning)
        self.typed.append(line)
        return self._shell.begin(line.replace("JOB_ID", job_id), beside=True)

    def run(self, beginning: str, job_id: str = "JOB_ID") -> str:
        self.typed.append(in_guide(beginning))
        return self.again(beginning, job_id)

    def again(self, beginning: str, job_id: str = "JOB_ID") -> str:
        """Types a line at a place where the guide only speaks of it."""
        line = in_guide(beginning)
        said = self._shell.run(line.replace("JOB_ID", job_id))
        self.said.setdefault(line, []).append(said)
        return said


def in_guide(beginning: str) -> str:
    """The one line of the guide that begins so."""
    found = {line for line in lines_on_one_machine() if line.startswith(beginning)}
    assert len(found) == 1, f"{beginning!r} begins {len(found)} lines of the guide"
    return found.pop()


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    if reason := why_not_here():
        pytest.skip(f"the guide's commands need a machine of their own: {reason}")
    with separate_hosts(tmp_path_factory.mktemp("guide"), 1) as hosts:
        (host,) = hosts.hosts
        with shell_on(host, environment_of_user()) as shell:
            yield whole_walk(host, hosts.gateway, shell)


def whole_walk(host: Host, gateway: str, shell: Shell) -> Walk:
    guide = Guide(shell)
    runs = Folder(str(host.disk / COPY / "runs"))
    with OfflineTeacher(gateway, faults=FAILING) as failing:
        copy_project(host.disk / COPY, failing.base_url)
        shell.run(f"cd {HOME / COPY}")
        guide.run("make quickstart")
        guide.run("asclepius doctor")
    num_failed = num_failed_in(runs.child("quickstart"))
    guide.run("ray get-auth-token")
    guide.run("export RAY_AUTH_MODE")
    guide.run("ray start")
    with OfflineTeacher(gateway, failing.port, faults=HANGING) as hanging:
        stopped = guide.begin("asclepius submit")
        wait_until(lambda: len(hanging.answers_by_prompt) >= ANSWERS_BEFORE_THE_STOP, stopped)
        guide.run("mkdir -p -m 700")
        (host.disk / ".asclepius" / "keys.env").write_text("ASCLEPIUS_API_KEY=long-random-text\n")
        guide.run("ray get-auth-token")
        guide.run("export RAY_AUTH_MODE")
        guide.run("export RAY_AUTH_MODE")
        for beginning in ("set -a", "openssl", "mkdir -p kuberay-crds", "set -a", "export RAY_AUTH_MODE"):
            guide.run(beginning)
        exported = shell.run("env")
        (job_id,) = set(re.findall(r"raysubmit_\w+", guide.run("ray job list")))
        log = guide.begin("ray job logs", job_id)
        wait_until(lambda: AT_WORK in log.text, log)
        guide.run("ray job stop", job_id)
        stopped.code()
        log.code()
        bought = hanging.answers_by_prompt
    guide.again("ray job list")
    num_durable = len(Journal.open(runs.child("submitted/journal/teacher")))
    was_finished = is_finished(runs.child("submitted/dataset"))
    with OfflineTeacher(gateway, failing.port) as well:
        guide.again("asclepius submit")
        bought_later = well.answers_by_prompt
        guide.run("ray stop")
        left_running = [process.name() for name in RAYS for process in host.processes(name)]
        guide.run("asclepius run")
    return Walk(
        guide.typed, guide.said, host.disk, num_failed, job_id, stopped, log, num_durable, was_finished,
        bought, bought_later, left_running, exported,
    )  # fmt: skip


def num_failed_in(root: Folder) -> int:
    failed = read_manifest(root.child("dataset")).counts["failed"]
    assert isinstance(failed, dict)
    return sum(failed.values())


def is_whole(root: Folder) -> bool:
    """Whether every stage has made its artefacts, the report too."""
    made = all(is_finished(root.child(name)) for name in ("dataset", "model", "evaluation"))
    return made and root.exists("report.html")


def test_every_line_that_one_machine_can_run_was_typed_in_the_guide_s_order(walk: Walk) -> None:
    stop = in_guide("ray stop")
    assert stop in walk.typed
    assert [line for line in walk.typed if line != stop] == [
        line for line in lines_on_one_machine() if line != stop
    ]


def test_the_first_two_lines_make_a_whole_run_and_find_nothing_in_its_way(walk: Walk) -> None:
    assert "evaluate: done in" in walk.words_of("make quickstart")[0]
    assert "nothing stands in the way of this run" in walk.words_of("asclepius doctor")[0]


def test_the_token_is_made_once_and_stays(walk: Walk) -> None:
    token = (walk.disk / ".ray" / "auth_token").read_text()
    assert len(token) == 64
    first, second = walk.words_of("ray get-auth-token")
    assert token in first
    assert token in second


def test_keys_lie_where_their_owner_alone_reads_them(walk: Walk) -> None:
    assert stat.S_IMODE((walk.disk / ".asclepius").stat().st_mode) == 0o700
    assert stat.S_IMODE((walk.disk / COPY / "ca.key").stat().st_mode) == 0o600
    assert "BEGIN CERTIFICATE" in (walk.disk / COPY / "ca.crt").read_text()


def test_the_file_of_keys_is_read_into_the_environment(walk: Walk) -> None:
    assert "ASCLEPIUS_API_KEY=long-random-text" in walk.exported.splitlines()


def test_a_job_at_work_is_listed_and_its_log_is_followed_to_its_end(walk: Walk) -> None:
    assert "JobStatus.RUNNING" in walk.words_of("ray job list")[0]
    assert walk.log.code() == 0, str(walk.log)
    for line in ("checking the teacher", AT_WORK, "stopped by SIGTERM"):
        assert line in walk.log.text


def test_a_job_that_is_stopped_ends_in_order_and_has_all_that_was_bought(walk: Walk) -> None:
    assert walk.stopped.code() == 1, str(walk.stopped)
    assert f"job {walk.job_id} was stopped" in walk.stopped.text
    assert f"'{walk.job_id}' was stopped" in walk.words_of("ray job stop")[0]
    assert "JobStatus.STOPPED" in walk.words_of("ray job list")[1]
    assert not walk.was_finished
    assert walk.num_durable == len(walk.bought) >= ANSWERS_BEFORE_THE_STOP


def test_the_same_command_goes_on_and_buys_nothing_twice(walk: Walk) -> None:
    (said,) = walk.words_of("asclepius submit")
    assert "has succeeded" in said
    assert is_whole(walk.root("submitted"))
    assert walk.bought_later
    assert walk.bought.keys() & walk.bought_later.keys() == set()
    assert {*walk.bought.values(), *walk.bought_later.values()} == {1}


def test_ray_stop_leaves_nothing_of_ray(walk: Walk) -> None:
    assert "Stopped all" in walk.words_of("ray stop")[0]
    assert walk.left_running == []


def test_rows_that_failed_are_asked_anew_and_what_comes_of_them_is_made_anew(walk: Walk) -> None:
    assert walk.num_failed > 0
    assert num_failed_in(walk.root("quickstart")) == 0
    assert is_whole(walk.root("quickstart"))
