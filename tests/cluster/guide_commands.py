"""What can be said of a command without its program, a cluster or a cloud: a complaint, or none.

A command that nobody knows here is a complaint too: who writes one into the guide says what holds of it.
"""

import json
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import ray.scripts.scripts
import typer
from committed import CLUSTER, PROJECT, documents_of
from guide import Command, blocks, commands
from typer.exceptions import TyperException

from asclepius_ray.cli import app
from asclepius_ray.errors import AsclepiusError
from asclepius_ray.launch.cluster.network_sections import TlsSection
from asclepius_ray.launch.cluster.profile import load_profile
from asclepius_ray.launch.cluster.validation.manifests import CLUSTER_KEYS
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
    if verb == "cp" and not command.words[-1].endswith(f":{_folder_of_runs()}/PMC-Patients.csv"):
        yield "the input would not be where the job looks for it"
    for selector in command.values("-l"):
        yield from _selects(selector)


def _kubectl_create(command: Command, folder: Path) -> Iterator[str]:
    yield from _kubectl(command, folder)
    if command.words[2] not in ("secret", "serviceaccount"):
        yield "only secrets and service accounts are made by hand"


def _kubectl_wait(command: Command, folder: Path) -> Iterator[str]:
    yield from _kubectl(command, folder)
    if command.value("--for") != CONDITIONS.get(command.words[-1].partition("/")[0]):
        yield "KubeRay sets no such condition"


def _kubectl_definition(command: Command, folder: Path) -> Iterator[str]:
    definition = command.words[3]
    if definition not in {f"{kind.lower()}s.ray.io" for kind in CLUSTER_KEYS}:
        yield "KubeRay defines no such resource"
    (read,) = {given.value("--crds") for given in commands()} - {""}
    if command.value(">") != f"{read}/ray.io_{definition.removesuffix('.ray.io')}.yaml":
        yield "validate would not find it"


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
    if command.value("--namespace"):
        yield "service elsewhere", f"{command.words[-2].partition('/')[2]}.{command.value('--namespace')}"
        return
    for place, word in enumerate(command.words):
        kind, _, name = word.partition("/")
        if kind in ("service", "pod", "raycluster", "rayservice") and name:
            yield kind, name
        if word in ("rayjob", "secret", "serviceaccount") and command.words[place + 1] != "generic":
            yield word, command.words[place + 1]
    if command.words[1:4] == ("create", "secret", "generic"):
        yield "secret", command.words[4]


def _names_of(kind: str) -> set[str]:
    """What our files and KubeRay make of a kind."""
    made = [(one.kind, one.name) for name in KUBERNETES_FILES for one in documents_of(name)]
    clusters = {name for found, name in made if found == "RayCluster"}
    return {
        "raycluster": clusters,
        "rayjob": {name for found, name in made if found == "RayJob"},
        "rayservice": {name for found, name in made if found == "RayService"},
        "serviceaccount": {_account()},
        "service elsewhere": {_setting("storage", "bucket", "endpoint").partition(":")[0]},
        # KubeRay keeps a cluster's token in a secret of the cluster's name.
        "secret": clusters | {KUBERNETES.secrets.secret, TlsSection().secret},
        "service": {f"{name}-head-svc" for name in clusters}
        | {f"{name}-serve-svc" for found, name in made if found == "RayService"},
    }.get(kind, set())


def _setting(*keys: str) -> str:
    """What the guide's pieces of a profile say, the last of them that says it."""
    found: Any = ""
    for block in blocks("toml"):
        value: Any = tomllib.loads(block)
        for key in keys:
            value = value.get(key, {})
        found = value or found
    return str(found)


def _account() -> str:
    """The pods' service account."""
    return _setting("cloud", "role")


CONDITIONS = {"raycluster": "condition=HeadPodReady", "rayservice": "condition=Ready"}
"""Of KubeRay's resources, those that the guide waits for."""
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
    pods = f"{GOOGLE.cloud.project}.svc.id.goog/subject/ns/default/sa/{_account()}"
    member = command.value("--member")
    if member not in ("", f"serviceAccount:{GOOGLE.cloud.role}") and not member.endswith(f"Pools/{pods}"):
        yield "--member is neither the profile's cloud.role nor the pods' account"
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
    written = [one.value(">").rpartition("/")[0] for one in commands()]
    if command.words[-1] not in (AWS.secrets.file.rpartition("/")[0], *filter(None, written)):
        yield "it is neither the folder of the profile's secrets.file nor of what a command writes"


def _set(command: Command, folder: Path) -> Iterator[str]:
    if command.words != ("set", "-a;", ".", f"{AWS.secrets.file};", "set", "+a"):
        yield "it does not put the profile's secrets.file into the environment"


def _nothing_more(command: Command, folder: Path) -> Iterator[str]:
    yield from ()


def _is_file(folder: Path, name: str) -> Iterator[str]:
    if not (folder / name).is_file():
        yield f"there is no file {name}, and no command before makes it"


CHECKS: dict[tuple[str, ...], Check] = {
    ("asclepius",): _asclepius,
    ("ray",): _ray,
    # Before `kubectl get`, the first that fits is taken.
    ("kubectl", "get", "crd"): _kubectl_definition,
    **{
        ("kubectl", verb): _kubectl
        for verb in ("apply", "delete", "annotate", "cp", "get", "describe", "logs", "port-forward")
    },
    ("kubectl", "create"): _kubectl_create,
    ("kubectl", "wait"): _kubectl_wait,
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
            ("projects", "describe"),
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
    ("set",): _set,
    ("pip", "install", "boto3"): _nothing_more,
    ("pip", "install", "google-api-python-client"): _nothing_more,
    ("base64", "--decode"): _nothing_more,
}
"""The first words of a command, and what is to hold of it."""
