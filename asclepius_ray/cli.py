"""The command `asclepius`: reads arguments, prints results; all work is done below.

Only what `--help` needs is imported here, so that it answers at once.
"""

import errno
import functools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn, ParamSpec

import typer
from rich.console import Console

from asclepius_ray import evaluate_commands, key_commands
from asclepius_ray.errors import AsclepiusError, ConfigError, Interrupted
from asclepius_ray.estimate_command import estimate
from asclepius_ray.launch.cluster import commands as cluster_commands
from asclepius_ray.launch.drain_watch.commands import drain_watch

if TYPE_CHECKING:
    from asclepius_ray.chat.clinical import ClinicalAnswer

app = typer.Typer(
    help="Turns public case reports into a clinical language model and serves it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
RunFile = Annotated[
    str,
    typer.Argument(
        metavar="RUN.toml", help="The run file, here or at s3:// or gs://; jobs/runs/ holds examples."
    ),
]
Job = Annotated[str, typer.Argument(metavar="JOB", help="synthesize, train, evaluate, serve or pipeline")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="a.b=c", help="Changes one setting; may be repeated.")
]
Arguments = ParamSpec("Arguments")
ONLY_FAILED = "failed"
terminations: list[int] = []
STORAGE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS)
output = Console(markup=False)
errors = Console(stderr=True, markup=False)


def guarded(command: Callable[Arguments, object]) -> Callable[Arguments, None]:
    """Turns every error of the user's into one message and a non-zero exit code.

    Ctrl-C and SIGTERM end the same way: in order, with what is finished kept.
    """

    @functools.wraps(command)
    def run_command(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except AsclepiusError as error:
            raise _fail(str(error), error.exit_code) from None
        except KeyboardInterrupt:
            _fail(_stopped_message(), Interrupted.exit_code)
            # At once: a thread of Ray Train's that is still at work would meet a Ray that has been shut
            # down, and Ray's core then ends the process with a code of its own. A local cluster goes
            # with its driver.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(Interrupted.exit_code)
        except OSError as error:
            # pyarrow gives the errors of a bucket no number.
            if error.errno is not None and error.errno not in STORAGE_ERRORS:
                raise
            raise _fail(_storage_message(error), 1) from None

    return run_command


def _terminate(signum: int, frame: FrameType | None) -> None:
    # Ray's calls give way to KeyboardInterrupt alone, and raise one of their own: any other exception
    # becomes a SystemError in them, and what this one carried would be lost. Elsewhere the name tells it from
    # Ctrl-C, after which there is no hurry.
    terminations.append(signum)
    if len(terminations) == 1:
        raise KeyboardInterrupt("SIGTERM")


def _stopped_message() -> str:
    cause = "SIGTERM" if terminations else "Ctrl-C"
    again = "run the same command again" + (" without --redo" if "--redo" in sys.argv else "")
    return f"stopped by {cause}; what is finished is kept: {again} to go on from there"


def _storage_message(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    reason = error.strerror or " ".join(str(error).split())[:300]
    return (
        f"{reason}{where}; make room there, or mend access to it, and run the same command again: "
        "what is finished is kept"
    )


def _fail(message: str, exit_code: int) -> typer.Exit:
    errors.print(f"error: {message}", highlight=False, soft_wrap=True)
    return typer.Exit(exit_code)


@app.command()
@guarded
def run(
    job: Job,
    run_file: RunFile,
    overrides: Overrides = None,
    redo: Annotated[
        str, typer.Option(metavar="STAGE", help="Makes a finished stage, and what follows, anew.")
    ] = "",
    only: Annotated[
        str, typer.Option(metavar="failed", help="failed: asks the teacher anew for the rows that failed.")
    ] = "",
) -> None:
    """Runs a job here, or on the cluster of RAY_ADDRESS."""
    from asclepius_ray.pipeline import run_job, serve
    from asclepius_ray.progress import Progress
    from asclepius_ray.run import load_run

    _check_job(job)
    if only not in ("", ONLY_FAILED):
        raise ConfigError(f"--only {only!r}: it takes the word {ONLY_FAILED}, and nothing else")
    settings = load_run(run_file, overrides)
    with Progress() as progress:
        if job == "serve":
            if redo or only:
                raise ConfigError(f"the job serve makes nothing anew: leave {redo or only!r} out")
            serve(settings, progress)
            return
        run_job(job, settings, redo, progress, only_failed=only == ONLY_FAILED)
    from asclepius_ray.summary import print_summary

    print_summary(output, settings, job, run_file)


@app.command()
@guarded
def doctor(
    run_file: RunFile,
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run/--no-dry-run", help="Whether two steps are trained for real.")
    ] = True,
    show_text: Annotated[
        bool, typer.Option("--show-text", help="Shows the row of the preview also where notes are real.")
    ] = False,
) -> None:
    """Says before a long run what will not work: one line a check, and exit code 1 if there is a problem."""
    from asclepius_ray.doctor.findings import problem
    from asclepius_ray.run import load_run

    try:
        settings = load_run(run_file, overrides)
    except ConfigError as error:
        _say(str(problem("run file", str(error))))
        raise typer.Exit(1) from None

    from asclepius_ray.doctor.examine import Examination
    from asclepius_ray.doctor.findings import Finding
    from asclepius_ray.doctor.preview import show_preview
    from asclepius_ray.progress import Progress

    with Progress() as progress:
        examination = Examination(settings, dry_run, progress)
        for found in examination.findings():
            if isinstance(found, Finding):
                output.print(found.styled(), soft_wrap=True)
            else:
                show_preview(output, found, show_text)
    if examination.num_problems:
        _say(f"{examination.num_problems} problem(s): the run would not end well")
        raise typer.Exit(1)
    _say("nothing stands in the way of this run")


app.command("estimate")(guarded(estimate))


@app.command()
@guarded
def submit(  # noqa: PLR0913  # each is an option of the command
    job: Job,
    run_file: RunFile,
    address: Annotated[
        str, typer.Option(metavar="URL", help="The cluster's dashboard, as http://HOST:8265.")
    ],
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Shows what would be sent, and sends nothing.")
    ] = False,
    shared: Annotated[
        list[str] | None,
        typer.Option(metavar="FOLDER", help="A folder that all nodes mount there; may be repeated."),
    ] = None,
    entrypoint_num_cpus: Annotated[
        float, typer.Option(metavar="CPUS", help="What the driver takes; with nothing it runs on the head.")
    ] = 0.0,
    entrypoint_num_gpus: Annotated[float, typer.Option(metavar="GPUS", help="Likewise.")] = 0.0,
    entrypoint_memory: Annotated[int, typer.Option(metavar="BYTES", help="Likewise.")] = 0,
    entrypoint_resources: Annotated[
        str, typer.Option(metavar="JSON", help="Likewise, the cluster's own resources by name.")
    ] = "",
) -> None:
    """Sends the job package to a cluster as a Ray job, follows its log, ends with its result."""
    from asclepius_ray.launch.driver_resources import read_driver_resources
    from asclepius_ray.launch.submit import Submission, submit_job

    _check_job(job)
    driver = read_driver_resources(
        entrypoint_num_cpus, entrypoint_num_gpus, entrypoint_memory, entrypoint_resources
    )
    submission = Submission(
        job, run_file, address, tuple(overrides or ()), dry_run, tuple(shared or ()), driver
    )
    raise typer.Exit(submit_job(submission, _say))


@app.command()
@guarded
def status(root: Annotated[str, typer.Argument(metavar="ROOT", help="The run's folder or URI.")]) -> None:
    """Shows how far each stage of a run is, what it has cost, who works on it, and what to do next."""
    from asclepius_ray.artifacts import Folder
    from asclepius_ray.run_status import print_status

    print_status(output, Folder(root).absolute())


@app.command()
@guarded
def report(root: Annotated[str, typer.Argument(metavar="ROOT", help="The run's folder or URI.")]) -> None:
    """Writes report.html anew from the run's artefacts, and evaluation/report.html where there are scores."""
    from asclepius_ray.artifacts import Folder
    from asclepius_ray.report.page import write_report

    folder = Folder(root).absolute()
    if not folder.exists("run.json"):
        raise ConfigError(f"{folder.shown} is not the folder of a run: it has no run.json")
    output.print(write_report(folder), soft_wrap=True, highlight=False)


@app.command()
@guarded
def purge(root: Annotated[str, typer.Argument(metavar="ROOT", help="The run's folder or URI.")]) -> None:
    """Removes journal, examples and raters' names of a finished run; notes, dataset, figures stay."""
    from asclepius_ray.artifacts import Folder
    from asclepius_ray.purge import purge as purge_root

    num_removed = purge_root(Folder(root).absolute())
    _say(f"{num_removed} files with texts removed; the notes, the dataset and the scores are as they were")


@app.command()
@guarded
def publish(  # noqa: PLR0913  # each is an option of the command
    root: Annotated[str, typer.Argument(metavar="ROOT", help="The run's folder or URI.")],
    to: Annotated[
        str,
        typer.Option(metavar="REPO|URI", help="OWNER/NAME on the Hugging Face hub, ./FOLDER or s3://BUCKET."),
    ],
    dataset: Annotated[bool, typer.Option("--dataset", help="The dataset alone.")] = False,
    model: Annotated[bool, typer.Option("--model", help="The model alone.")] = False,
    public: Annotated[
        bool, typer.Option("--public", help="Opens the repository to everybody; by default it is private.")
    ] = False,
    allow_real_notes: Annotated[
        bool, typer.Option("--allow-real-notes", help="Publishes what was made from real notes.")
    ] = False,
    allow_unknown_origin: Annotated[
        bool,
        typer.Option(
            "--allow-unknown-origin",
            help="Publishes a model that was trained on a data set of which nobody knows whose it is.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Checks, shows what would go, and sends nothing.")
    ] = False,
) -> None:
    """Gives dataset and model away with their cards, to the Hugging Face hub, a folder or a bucket."""
    from asclepius_ray.artifacts import Folder
    from asclepius_ray.progress import Progress
    from asclepius_ray.publish.publishing import TOKEN_VARIABLE, Order
    from asclepius_ray.publish.publishing import publish as publish_run
    from asclepius_ray.run import read_secret

    wanted = {"dataset": dataset, "model": model}
    kinds = tuple(kind for kind, is_wanted in wanted.items() if is_wanted) or tuple(wanted)
    order = Order(to, kinds, public, allow_real_notes, allow_unknown_origin, dry_run)
    with Progress() as progress:
        publish_run(Folder(root).absolute(), order, read_secret(TOKEN_VARIABLE), progress, _say)


@app.command()
@guarded
def ask(
    note: Annotated[str, typer.Option(metavar="FILE", help="The note, as a text file; - = standard input.")],
    question: Annotated[str, typer.Argument(help="What to ask about the note.")] = "",
    task: Annotated[str, typer.Option(help="One of the eight tasks, with its own question.")] = "",
    model: Annotated[str, typer.Option(help="Which, where the address serves several.")] = "",
    url: Annotated[str, typer.Option(help="The served model's address.")] = "http://127.0.0.1:8000/v1",
    api_key_env: Annotated[
        str, typer.Option(help="The environment variable that holds the key.")
    ] = "ASCLEPIUS_API_KEY",
) -> None:
    """Asks a served model about a note: the answer as it grows, what it cost on standard error."""
    from asclepius_ray.chat.clinical import ClinicalQuestion, stream_clinical
    from asclepius_ray.run import read_secret

    if not question and not task:
        raise ConfigError("there is nothing to ask: write a question, or choose a task with --task")
    key = read_secret(api_key_env)
    if not key:
        raise ConfigError(f"the environment variable {api_key_env} is not set; put the server's key there")
    for piece in stream_clinical(url, key, ClinicalQuestion(_read_note(note), question, task, model)):
        if isinstance(piece, str):
            # As it is: a console would read codes of emoji and colours in it.
            typer.echo(piece, nl=False)
        else:
            typer.echo()
            _say_cost(piece)


def _read_note(note: str) -> str:
    if note != "-" and not Path(note).is_file():
        raise ConfigError(f"there is no note at {note}")
    try:
        return sys.stdin.read() if note == "-" else Path(note).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{note} is not a text file in UTF-8") from None


def _say_cost(answer: "ClinicalAnswer") -> None:
    shortened = "; the note was too long and was shortened" if answer.note_was_shortened else ""
    typer.echo(
        f"{answer.prompt_tokens} + {answer.completion_tokens} tokens, {answer.total_seconds:.1f} s"
        f"{shortened}. For research, not for clinical decisions.",
        err=True,
    )


@app.command()
@guarded
def teacher(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 = any free port.")] = 8001,
    api_key_env: Annotated[
        str, typer.Option(help="The environment variable with the key that clients must send; empty = none.")
    ] = "",
    fault: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=NUMBER", help="Misbehaves, for tests: see the README's list of faults."),
    ] = None,
) -> None:
    """Serves the offline teacher: rules behind an OpenAI-compatible address, and no language model."""
    from asclepius_ray.chat.offline.faults import parse_faults
    from asclepius_ray.chat.offline.server import serve_forever
    from asclepius_ray.run import read_secret

    key = read_secret(api_key_env)
    if api_key_env and not key:
        raise ConfigError(f"the environment variable {api_key_env} is not set; put the key there")
    serve_forever(host, port, key, parse_faults(fault or []), _say)


app.command("drain-watch")(guarded(drain_watch))
for _name, _module in {
    "keys": key_commands,
    "evaluate": evaluate_commands,
    "cluster": cluster_commands,
}.items():
    _group = typer.Typer(help=_module.HELP, no_args_is_help=True)
    app.add_typer(_group, name=_name)
    for _verb, _command in _module.COMMANDS.items():
        _group.command(_verb)(guarded(_command))


def _say(line: str) -> None:
    output.print(line, highlight=False, soft_wrap=True)


def _check_job(job: str) -> None:
    from asclepius_ray.run import JOBS

    if job not in JOBS:
        raise ConfigError(f"there is no job {job!r}; the jobs are {', '.join(JOBS)}")


def main(arguments: list[str] | None = None) -> NoReturn:
    """The entry point of the command, and of the pages of jobs/."""
    signal.signal(signal.SIGTERM, _terminate)
    app(arguments)
    sys.exit(0)


if __name__ == "__main__":
    main()
