"""Sends a run file and the code as one Ray job, follows its log and ends with its exit code.

Everything that can be refused is refused before anything is sent: the run file, the size of the
package, the cluster's versions, and places that only this machine sees.
"""

import asyncio
import secrets
import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from asclepius_ray.errors import ConfigError, SubmitError
from asclepius_ray.launch.driver_resources import ON_THE_HEAD, DriverResources
from asclepius_ray.launch.following import RETRY_SECONDS, Say, ask_for_job, follow_job
from asclepius_ray.launch.locations import (
    STAGES_OF_JOB,
    Place,
    check_shared,
    expected_variables,
    place_on_cluster,
    sources_of,
)
from asclepius_ray.launch.package import (
    RUN_FILE_NAME,
    Package,
    build_package,
    find_project,
    has_jobs,
    list_files,
)
from asclepius_ray.launch.remote import (
    check_versions,
    connect,
    describe_spread,
    list_nodes,
    own_versions,
    read_versions,
)
from asclepius_ray.launch.stopping import stop_seconds
from asclepius_ray.run import (
    Run,
    endpoints_of,
    headers_in_override,
    name_run_file,
    parse_run,
    read_run_text,
)


@dataclass(frozen=True)
class Submission:
    """What the user asked for."""

    job: str
    run_file: str
    """A path here, or an address in a bucket; it travels in the package either way."""
    address: str
    """The dashboard's, http://HOST:8265."""
    overrides: tuple[str, ...] = ()
    dry_run: bool = False
    shared: tuple[str, ...] = ()
    """Folders that every node of the cluster mounts, as they are called there."""
    driver: DriverResources = ON_THE_HEAD
    """What the job's driver takes; nothing = it runs on the head."""


def submit_job(submission: Submission, say: Say, project: Path | None = None) -> int:
    """Submits the job, says its log line by line and returns its exit code.

    An Interrupted on Ctrl-C says that the job goes on and how it is stopped. `project` is the folder
    that holds `asclepius_ray/` and `jobs/`; by default the one that this package runs from.
    """
    if submission.job not in STAGES_OF_JOB:
        raise ConfigError(f"there is no job {submission.job!r}; the jobs are {', '.join(STAGES_OF_JOB)}")
    text = read_run_text(submission.run_file)
    run = parse_run(text, name_run_file(submission.run_file), list(submission.overrides))
    _refuse_headers(submission.overrides)
    check_shared(submission.shared)
    folder = (project or find_project()).resolve()
    with tempfile.TemporaryDirectory(prefix="asclepius-submit-") as temporary:
        run_file = Path(temporary) / RUN_FILE_NAME
        run_file.write_bytes(text.encode())
        sources = sources_of(submission.job, run)
        package = build_package(folder, run_file, Path(temporary) / "package.zip", sources)
        client = connect(submission.address)
        versions = read_versions(client, submission.address)
        check_versions(own_versions(), versions, submission.address)
        nodes = list_nodes(client, submission.address)
        packaged = frozenset(list_files(folder, sources).values())
        places = place_on_cluster(
            submission.job, run, describe_spread(nodes), packaged, folder, submission.shared
        )
        entrypoint = build_entrypoint(submission.job, submission.overrides, places, has_jobs(folder))
        say(f"package: {package.num_files} files, {package.size_bytes / 1e6:.2f} MB")
        say(f"cluster: {len(nodes)} node(s), Ray {versions.ray}, Python {versions.python}")
        _say_secrets(submission.job, run, say)
        for place in places:
            say(f"{place.setting} is {place.path} in the job")
        if submission.driver.said:
            say(f"the driver takes {submission.driver.said}, on a node that has it")
        if submission.dry_run:
            say(f"would run: {entrypoint}")
            say("nothing was sent (--dry-run)")
            return 0
        job_id = _send(client, submission, entrypoint, package, stop_seconds(run))
    say(f"job {job_id}: {entrypoint}")
    return follow_job(client, job_id, submission.address, say)


def build_entrypoint(job: str, overrides: tuple[str, ...], places: list[Place], with_jobs: bool) -> str:
    """The command that the cluster runs in the unpacked package."""
    page = f"python jobs/{job}.py" if with_jobs else f"python -m asclepius_ray.cli run {job}"
    settings = [*overrides, *(f"{place.setting}={place.path}" for place in places)]
    return " ".join([page, RUN_FILE_NAME, *(f"--set {shlex.quote(setting)}" for setting in settings)])


def _send(
    client: JobSubmissionClient, submission: Submission, entrypoint: str, package: Package, stop_within: int
) -> str:
    """Sends the job under a name of ours, by which it is found where the answer to the sending is lost."""
    job_id, driver = f"raysubmit_{secrets.token_hex(8)}", submission.driver
    runtime_env = {
        "working_dir": str(package.path),
        "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(stop_within)},
    }
    try:
        client.submit_job(
            submission_id=job_id,
            entrypoint=entrypoint,
            runtime_env=runtime_env,
            entrypoint_num_cpus=driver.num_cpus or None,
            entrypoint_num_gpus=driver.num_gpus or None,
            entrypoint_memory=driver.memory_bytes or None,
            entrypoint_resources=dict(driver.custom) or None,
        )
    except (RuntimeError, OSError, AuthenticationError) as error:
        if not (isinstance(error, OSError) and asyncio.run(_has_arrived(client, job_id, submission.address))):
            raise SubmitError(f"the cluster did not take the job: {' '.join(str(error).split())}") from error
    return job_id


async def _has_arrived(client: JobSubmissionClient, job_id: str, address: str) -> bool:
    # What was sent before the connection broke may still be on its way.
    await asyncio.sleep(RETRY_SECONDS)
    return await ask_for_job(client, job_id, address) is not None


def _say_secrets(job: str, run: Run, say: Say) -> None:
    for variable, purpose in expected_variables(job, run).items():
        say(f"{variable} is read from the environment of the cluster's nodes ({purpose}); no key is sent")
    for name, endpoint in endpoints_of(run).items():
        if endpoint.headers:
            names = ", ".join(sorted(endpoint.headers))
            say(f"the headers of [{name}] are sent within the run file: {names}")


def _refuse_headers(overrides: tuple[str, ...]) -> None:
    for override in overrides:
        if any(headers_in_override(override)):
            raise ConfigError(
                f"--set {override.partition('=')[0].strip()} would be shown to everybody who sees the "
                "cluster's dashboard, and a header may hold a key; write it into the run file"
            )
