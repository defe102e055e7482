"""`asclepius cluster`: renders a profile's files, and says what is wrong with such files."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, cast, get_args

import typer
from rich.console import Console

from asclepius_ray.errors import ConfigError

TARGETS = "aws, gcp, raycluster, rayjob, rayservice or storage"
output = Console(markup=False, highlight=False)


def render(
    profile: Annotated[str, typer.Argument(metavar="PROFILE", help="cluster/profiles/ holds some.")],
    to: Annotated[str, typer.Option(metavar="TARGET", help=TARGETS)],
    run: Annotated[
        str,
        typer.Option(
            metavar="RUN.toml",
            help="The run file, for rayjob and rayservice; a job reads one in a bucket from there.",
        ),
    ] = "",
    revision: Annotated[
        str,
        typer.Option(
            metavar="TEXT",
            help="Of a rayservice: another one than before replaces the replicas, for a model trained anew.",
        ),
    ] = "",
    out: Annotated[str, typer.Option(metavar="FILE", help="Where it is written; else it is printed.")] = "",
) -> None:
    """Renders a profile as the file that `ray up` or KubeRay takes."""
    from importlib.metadata import version

    from asclepius_ray.artifacts import Folder
    from asclepius_ray.launch.cluster.kuberay import RunFile
    from asclepius_ray.launch.cluster.profile import Target, load_profile
    from asclepius_ray.launch.cluster.rendering import render as render_target
    from asclepius_ray.launch.cluster.rendering import render_file, tell_where_runs_live
    from asclepius_ray.run import name_run_file, parse_run, read_run_text

    if to not in get_args(Target):
        raise ConfigError(f"--to {to!r} is not known; there are {TARGETS}")
    file = None
    if run:
        text = read_run_text(run)
        address = "" if Folder(run).is_local else run
        file = RunFile(text, parse_run(text, name_run_file(run)), address)
    found = load_profile(profile)
    documents = render_target(found, cast(Target, to), file, version("ray"), revision)
    options = {"--run": run, "--revision": revision}
    given = [f" {option} {shlex.quote(value)}" for option, value in options.items() if value]
    command = f"asclepius cluster render {profile} --to {to}{''.join(given)}"
    hint = tell_where_runs_live(found) if to in ("aws", "gcp") else ""
    rendered = render_file(documents, command, hint)
    if not out:
        typer.echo(rendered, nl=False)
        return
    try:
        Path(out).write_text(rendered, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--out {out}: {error.strerror}; name a file in a folder that is there") from None


def validate(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Manifests, or a file of ray up.")],
    profile: Annotated[
        str, typer.Option(metavar="PROFILE", help="What the nodes are, to compare the model with.")
    ] = "",
    run: Annotated[str, typer.Option(metavar="RUN.toml", help="The run that the cluster is for.")] = "",
    crds: Annotated[
        str, typer.Option(metavar="FOLDER", help="KubeRay's resource definitions (ray.io_rayjobs.yaml, ...).")
    ] = "",
) -> None:
    """Says, without a cluster, what is wrong with manifests: one line each, and exit code 1."""
    from asclepius_ray.launch.cluster.profile import load_profile
    from asclepius_ray.launch.cluster.validation.manifests import read_files
    from asclepius_ray.launch.cluster.validation.started import RunText
    from asclepius_ray.launch.cluster.validation.validating import Knowledge
    from asclepius_ray.launch.cluster.validation.validating import validate as validate_documents
    from asclepius_ray.run import name_run_file, read_run_text

    knowledge = Knowledge(
        profile=load_profile(profile) if profile else None,
        run=RunText(read_run_text(run), name_run_file(run)) if run else None,
        crds=crds,
    )
    report = validate_documents(read_files(files), knowledge)
    for finding in report.findings:
        output.print(str(finding), soft_wrap=True)
    for line in report.unchecked:
        output.print(f"not looked at: {line}", soft_wrap=True)
    if report.findings:
        output.print(f"{len(report.findings)} problem(s): this cluster would not do", soft_wrap=True)
        raise typer.Exit(1)
    output.print("nothing is wrong with what was looked at", soft_wrap=True)


HELP = "Renders the files of a cluster from one profile, and says what is wrong with such files."
COMMANDS: dict[str, Callable[..., None]] = {"render": render, "validate": validate}
