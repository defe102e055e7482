"""What can be said of a command without its program, a cluster or a cloud: a complaint, or none.

A command that nobody knows here is a complaint too: who writes one into the guide says what holds of it.
"""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import ray.scripts.scripts
import typer
from committed import CLUSTER, PROJECT, documents_of
from guide import Command
from typer.exceptions import TyperException

from asclepius_ray.cli import app
from asclepius_ray.errors import AsclepiusError
from asclepius_ray.launch.cluster.network_sections import TlsSection
from asclepius_ray.launch.cluster.profile import load_profile
from asclepius_ray.launch.cluster.yaml_text import load_documents
from asclepius_ray.run import JOBS, load_run

AWS, GOOGLE, KUBERNETES = (
    load_profile(str(CLUSTER / "profiles" / f"{name}.toml")) for name in ("aws", "gcp", "kubernetes")
)
Check = Callable[[Command, Path], Iterator[str]]


def complaints(command: Command, folder: Path) -> list[str]:
    """What is wrong with a command that is given in `folder`."""
    for prefix, check in CHECKS.items():
        if command.words[: len(prefix)] == prefix:
            return [f"{command}: {said}" for said in check(command, folder)]
    return [f"{command}: no check knows it; add one to {Path(__file__).name}"]


def _parsed(command: Command, root: Any) -> Iterator[str]:
    """Whether the program's own command line takes the words."""
    name, *rest = command.words
    found = root
    # Typer has a click of its own: neither is an instance of the other's classes.
    while hasattr(found, "commands"):
        if not rest or rest[0] not in found.commands:
            yield f"there is no such command of {name}"
            return
        found = found.commands[rest.pop(0)]
    try:
        found.make_context(name, rest)
    except (click.UsageError, TyperException) as error:
        yield error.format_message()


def _asclepius(command: Command, folder: Path) -> Iterator[str]:
    yield from _parsed(command, typer.main.get_command(app))
    if command.words[1] in ("run", "submit"):
        job, run_file = command.words[2:4]
        if job not in JOBS:
            yield f"there is no job {job}"
        try:
            load_run(str(folder / run_file), command.values("--set"))
        except AsclepiusError as error:
            yield str(error)


def _ray(command: Command, folder: Path) -> Iterator[str]:
    yield from _parsed(command, ray.scripts.scripts.cli)
    if command.words[1] in ("up", "down", "dashboard", "exec"):
        yield from _is_file(folder, command.words[2])


def _kubectl(command: Command, folder: Path) -> Iterator[str]:
    verb = command.words[1]
    if verb in ("apply", "delete"):
        for file in command.values("-f"):
            yield from _is_manifest(folder, file)
    for kind, name in _named(command):
        if name not in _names_of(kind):
            yield f"nothing makes a {kind} called {name}"
    if verb == "create" and command.words[2:4] != ("secret", "generic"):
        yield "only a secret is made by hand"
    if verb == "cp" and not command.words[-1].endswith(f":{_folder_of_runs()}/PMC-Patients.csv"):
        yield "the input would not be where the job looks for it"
    for selector in command.values("-l"):
        yield from _selects(selector)


def _kubectl_exec(command: Command, folder: Path) -> Iterator[str]:
    inside = Command(command.words[command.words.index("--") + 1 :])
    yield from _asclepius(inside, folder)
    if not inside.words[3].startswith(f"{_folder_of_runs()}/"):
        yield "the pod would write where no other pod sees it"


def _is_manifest(folder: Path, file: str) -> Iterator[str]:
    yield from _is_file(folder, file)
    if (folder / file).is_file():
        documents = load_documents((folder / file).read_text(), file)
        if not all(document.get("kind") for document in documents):
            yield f"{file} is no file of Kubernetes'"


def _named(command: Command) -> Iterator[tuple[str, str]]:
    """Resources that a kubectl command names, as kind and name."""
    for place, word in enumerate(command.words):
        kind, _, name = word.partition("/")
        if kind in ("service", "pod") and name:
            yield kind, name
        if word in ("rayjob", "secret") and command.words[place + 1] != "generic":
            yield word, command.words[place + 1]
    if command.words[1:4] == ("create", "secret", "generic"):
        yield "secret", command.words[4]


def _names_of(kind: str) -> set[str]:
    """What our files and KubeRay make of a kind."""
    made = [(one.kind, one.name) for name in KUBERNETES_FILES for one in documents_of(name)]
    clusters = {name for found, name in made if found == "RayCluster"}
    return {
        "rayjob": {name for found, name in made if found == "RayJob"},
        # KubeRay keeps a cluster's token in a secret of the cluster's name.
        "secret": clusters | {KUBERNETES.secrets.secret, TlsSection().secret},
        "service": {f"{name}-head-svc" for name in clusters}
        | {f"{name}-serve-svc" for found, name in made if found == "RayService"},
    }.get(kind, set())


KUBERNETES_FILES = ("raycluster.yaml", "rayjob.yaml", "rayservice.yaml", "storage.yaml")


def _folder_of_runs() -> str:
    assert KUBERNETES.storage.volume is not None
    return KUBERNETES.storage.volume.folder


def _selects(selector: str) -> Iterator[str]:
    known = {"ray.io/cluster": {KUBERNETES.name}, "ray.io/node-type": {"head", "worker"}}
    for label in selector.split(","):
        key, _, value = label.partition("=")
        if value not in known.get(key, set()):
            yield f"no pod has the label {label}"


def _aws(command: Command, folder: Path) -> Iterator[str]:
    for option in ("--assume-role-policy-document", "--policy-document"):
        if file := command.value(option):
            path = file.removeprefix("file://")
            yield from _is_file(folder, path)
            if not json.loads((folder / path).read_text())["Statement"]:
                yield f"{path} allows nothing"
    for option in ("--role-name", "--instance-profile-name"):
        if command.value(option) not in ("", AWS.cloud.role):
            yield f"{option} is not the profile's cloud.role"
    if command.value("--region") not in ("", AWS.cloud.region):
        yield "--region is not the profile's cloud.region"


def _gcloud(command: Command, folder: Path) -> Iterator[str]:
    member = command.value("--member")
    if member not in ("", f"serviceAccount:{GOOGLE.cloud.role}"):
        yield "--member is not the profile's cloud.role"
    if command.value("--location") not in ("", GOOGLE.cloud.region):
        yield "--location is not the profile's cloud.region"
    if command.value("--project") not in ("", GOOGLE.cloud.project):
        yield "--project is not the profile's cloud.project"
    if command.words[2:4] == ("service-accounts", "create") and not GOOGLE.cloud.role.startswith(
        f"{command.words[4]}@"
    ):
        yield "it makes another account than the profile's cloud.role"


def _helm(command: Command, folder: Path) -> Iterator[str]:
    if command.words[1] == "install" and not command.value("--version").startswith("1.7."):
        yield "the files are for KubeRay 1.7"


def _openssl(command: Command, folder: Path) -> Iterator[str]:
    done = subprocess.run(command.words, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        yield done.stderr


def _make(command: Command, folder: Path) -> Iterator[str]:
    if f"\n{command.words[1]}: " not in (PROJECT / "Makefile").read_text():
        yield "the Makefile has no such target"


def _export(command: Command, folder: Path) -> Iterator[str]:
    if command.words[1].partition("=")[0] not in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        yield "Ray reads no such variable"


def _mkdir(command: Command, folder: Path) -> Iterator[str]:
    if command.words[-1] != AWS.secrets.file.rpartition("/")[0]:
        yield "it is not the folder of the profile's secrets.file"


def _nothing_more(command: Command, folder: Path) -> Iterator[str]:
    yield from ()


def _is_file(folder: Path, name: str) -> Iterator[str]:
    if not (folder / name).is_file():
        yield f"there is no file {name}, and no command before makes it"


CHECKS: dict[tuple[str, ...], Check] = {
    ("asclepius",): _asclepius,
    ("ray",): _ray,
    **{
        ("kubectl", verb): _kubectl for verb in ("apply", "delete", "create", "cp", "get", "describe", "logs")
    },
    ("kubectl", "port-forward"): _kubectl,
    ("kubectl", "exec"): _kubectl_exec,
    **{("aws", *names): _aws for names in (("s3", "mb"), ("s3", "cp"), ("ssm", "get-parameter"))},
    **{
        ("aws", "iam", name): _aws
        for name in (
            "create-role",
            "put-role-policy",
            "create-instance-profile",
            "add-role-to-instance-profile",
            "create-service-linked-role",
        )
    },
    **{
        ("gcloud", *names): _gcloud
        for names in (
            ("services", "enable"),
            ("iam", "service-accounts", "create"),
            ("projects", "add-iam-policy-binding"),
            ("storage", "buckets", "create"),
            ("storage", "buckets", "add-iam-policy-binding"),
            ("storage", "cp"),
            ("auth", "application-default", "login"),
        )
    },
    **{("helm", *names): _helm for names in (("repo", "add"), ("install",))},
    ("openssl", "req"): _openssl,
    ("make",): _make,
    ("export",): _export,
    ("mkdir",): _mkdir,
    ("pip", "install", "boto3"): _nothing_more,
    ("pip", "install", "google-api-python-client"): _nothing_more,
    ("base64", "--decode"): _nothing_more,
}
"""The first words of a command, and what is to hold of it."""
