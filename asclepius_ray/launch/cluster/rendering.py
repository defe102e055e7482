"""A profile and a target → one YAML file, always the same bytes for the same profile and run. Pure."""

from typing import assert_never

from asclepius_ray.errors import ConfigError
from asclepius_ray.launch.cluster.kuberay import (
    RunFile,
    render_cluster,
    render_job,
    render_service,
    render_storage,
)
from asclepius_ray.launch.cluster.launcher import render_launcher
from asclepius_ray.launch.cluster.overlays import lay_over
from asclepius_ray.launch.cluster.placing import storage_folder
from asclepius_ray.launch.cluster.profile import KUBERNETES_TARGETS, Profile, Target
from asclepius_ray.launch.cluster.yaml_text import Json, dump_documents, load_documents

TARGETS_WITH_RUN: tuple[Target, ...] = ("rayjob", "rayservice")


def render(
    profile: Profile, target: Target, file: RunFile | None, ray_version: str, revision: str = ""
) -> list[Json]:
    """The documents of a target; a ConfigError says what the profile or the command lacks for it."""
    if target in KUBERNETES_TARGETS and profile.cloud.kind != "kubernetes":
        raise ConfigError(
            f'the profile is for {profile.cloud.kind}: --to {target} needs cloud.kind = "kubernetes"; '
            "cluster/profiles/ holds one for each"
        )
    if (file is not None) != (target in TARGETS_WITH_RUN):
        raise ConfigError(
            f"--to {target} needs the run that it is for: --run RUN.toml"
            if file is None
            else f"--to {target} is for any run: leave --run out, and give the run file to `asclepius submit`"
        )
    if revision and target != "rayservice":
        raise ConfigError(
            f"--revision is of the model that a rayservice serves; leave it out with --to {target}"
        )
    documents = _documents(profile, target, file, ray_version, revision)
    where = f"overlay.{target} of the profile"
    return lay_over(documents, load_documents(profile.overlay.get(target, ""), where), where)


def render_file(documents: list[Json], command: str, hint: str = "") -> str:
    """The file's text, with the command that made it, and below it what else is to be known."""
    said = f"# {hint}\n" if hint else ""
    return f"# Rendered, not written by hand: {command}\n{said}{dump_documents(documents)}"


def tell_where_runs_live(profile: Profile) -> str:
    """How a job on AWS's or Google Cloud's machines is told the storage, which no node of theirs knows."""
    root = storage_folder(profile.storage).child("NAME").uri
    return f"Its runs go to: asclepius submit JOB RUN.toml --address URL --set 'root={root}'"


def _documents(
    profile: Profile, target: Target, file: RunFile | None, ray_version: str, revision: str
) -> list[Json]:
    match target:
        case "aws" | "gcp":
            return render_launcher(profile, target)
        case "storage":
            return render_storage(profile)
        case "raycluster":
            return render_cluster(profile, ray_version)
        case "rayjob":
            assert file is not None
            return render_job(profile, file, ray_version)
        case "rayservice":
            assert file is not None
            return render_service(profile, file, ray_version, revision)
        case _:
            assert_never(target)
