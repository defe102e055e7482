"""The command `asclepius`: reads arguments, prints results; all work is done below.

Only what `--help` needs is imported here, so that it answers at once.
"""

import errno
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import click
import typer
from rich.console import Console

from asclepius_ray.errors import AsclepiusError, ConfigError, Interrupted

app = typer.Typer(
    help="Turns public case reports into a clinical language model and serves it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
RunFile = Annotated[str, typer.Argument(metavar="RUN.toml", help="The run file; jobs/runs/ holds examples.")]
Job = Annotated[str, typer.Argument(metavar="JOB", help="synthesize, train, evaluate, serve or pipeline")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="a.b=c", help="Changes one setting; may be repeated.")
]
output = Console()
errors = Console(stderr=True)


@app.command()
def run(
    job: Job,
    run_file: RunFile,
    overrides: Overrides = None,
    redo: Annotated[
        str, typer.Option(metavar="STAGE", help="Makes a finished stage, and what follows, anew.")
    ] = "",
) -> None:
    """Runs a job here, or on the cluster of RAY_ADDRESS."""
    from asclepius_ray.pipeline import run_job, serve
    from asclepius_ray.progress import Progress
    from asclepius_ray.run import load_run

    _check_job(job)
    settings = load_run(run_file, overrides)
    with Progress() as progress:
        if job == "serve":
            serve(settings, progress)
            return
        run_job(job, settings, redo, progress)
    from asclepius_ray.summary import print_summary

    print_summary(output, settings, job, run_file)


@app.command()
def submit(
    job: Job,
    run_file: RunFile,
    address: Annotated[
        str, typer.Option(metavar="URL", help="The cluster's dashboard, as http://HOST:8265.")
    ],
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Shows what would be sent, and sends nothing.")
    ] = False,
) -> None:
    """Sends the job package to a cluster as a Ray job, follows its log, ends with its result."""
    from asclepius_ray.launch.submit import Submission, submit_job

    _check_job(job)
    raise typer.Exit(
        submit_job(Submission(job, run_file, tuple(overrides or ()), address, dry_run), output.print)
    )


@app.command()
def status(root: Annotated[str, typer.Argument(metavar="ROOT", help="The run's folder or URI.")]) -> None:
    """Shows which stages of a run are finished, and who is working on it."""
    from asclepius_ray.artifacts import Folder
    from asclepius_ray.summary import print_status

    print_status(output, Folder(root).absolute())


@app.command()
def report(root: Annotated[str, typer.Argument(metavar="ROOT", help="The run's folder or URI.")]) -> None:
    """Writes report.html anew from the run's artefacts."""
    from asclepius_ray.artifacts import Folder
    from asclepius_ray.report.page import write_report

    folder = Folder(root).absolute()
    if not folder.exists("run.json"):
        raise ConfigError(f"{root} is not the folder of a run: it has no run.json")
    output.print(write_report(folder), soft_wrap=True, highlight=False)


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="What to ask about the note.")],
    note: Annotated[Path, typer.Option(metavar="FILE", help="The note, as a text file.")],
    url: Annotated[str, typer.Option(help="The served model's address.")] = "http://127.0.0.1:8000/v1",
    api_key_env: Annotated[
        str, typer.Option(help="The environment variable that holds the key.")
    ] = "ASCLEPIUS_API_KEY",
) -> None:
    """Asks a served model one question about a note."""
    from asclepius_ray.chat.clinical import ask_clinical
    from asclepius_ray.run import read_secret

    if not note.is_file():
        raise ConfigError(f"there is no note at {note}")
    key = read_secret(api_key_env)
    if not key:
        raise ConfigError(f"the environment variable {api_key_env} is not set; put the server's key there")
    answer = ask_clinical(url, key, note.read_text(encoding="utf-8"), question)
    output.print(answer, markup=False, highlight=False, soft_wrap=True)


def _check_job(job: str) -> None:
    jobs = ("synthesize", "train", "evaluate", "serve", "pipeline")
    if job not in jobs:
        raise ConfigError(f"there is no job {job!r}; the jobs are {', '.join(jobs)}")


def main() -> NoReturn:
    """The entry point: every error of the user's ends in one message and a non-zero exit."""
    sys.exit(run_guarded(lambda: app(standalone_mode=False)))


def run_job_page(job: str, arguments: list[str]) -> int:
    """What the pages of jobs/ do: `asclepius run JOB` with the rest of the command line; the exit code."""
    return run_guarded(lambda: app(["run", job, *arguments], standalone_mode=False))


def run_guarded(work: Callable[[], object]) -> int:
    """Runs `work`; the exit code. SIGTERM ends it as Ctrl-C does: in order, with what is finished kept."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        result = work()
    except AsclepiusError as error:
        return _fail(str(error), error.exit_code)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return _fail(str(_interrupted("Ctrl-C")), Interrupted.exit_code)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS):
            raise
        return _fail(_storage_message(error), 1)
    return result if isinstance(result, int) else 0


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise _interrupted("SIGTERM")


def _interrupted(cause: str) -> Interrupted:
    return Interrupted(
        f"stopped by {cause}; what is finished is kept: run the same command again to go on from there"
    )


def _storage_message(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    reason = error.strerror or "a file cannot be written"
    return (
        f"{reason}{where}; make room (or fix the folder's rights) and run the same command again: "
        "what is finished is kept"
    )


def _fail(message: str, exit_code: int) -> int:
    errors.print(f"error: {message}", markup=False, highlight=False, soft_wrap=True)
    return exit_code
