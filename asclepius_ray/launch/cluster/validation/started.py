"""Which run a manifest starts, and with what. Pure."""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from asclepius_ray.config import parse_section
from asclepius_ray.errors import ConfigError
from asclepius_ray.launch.cluster.validation.manifests import (
    LAUNCHER,
    Document,
    RayResource,
    applications_of,
)
from asclepius_ray.launch.cluster.validation.reading import (
    amount,
    list_at,
    number_at,
    table_at,
    text_at,
    value_at,
)
from asclepius_ray.run import Run
from asclepius_ray.serving.config import ServingConfig


@dataclass(frozen=True)
class Entrypoint:
    """`python PAGE RUN_FILE [--set a.b=c]...`"""

    page: str
    run_file: str
    overrides: tuple[str, ...]

    @property
    def job(self) -> str:
        return PurePosixPath(self.page).stem


@dataclass(frozen=True)
class RunText:
    """A run file's text and where it stands."""

    text: str
    where: str


@dataclass(frozen=True)
class Started:
    """A document and the run that is meant for it."""

    document: Document
    run: Run
    job: str
    """The stages that it will see are this job's."""


@dataclass(frozen=True)
class Pool:
    """Nodes of one kind."""

    path: str
    """Of its maximum."""
    name: str
    cpus: float
    gpus: int
    most: int
    is_known: bool = True
    """False where the launcher is to ask the cloud what the machine has."""


def parse_entrypoint(text: str) -> Entrypoint | None:
    """The parts of a RayJob's command; None where it is none of ours."""
    try:
        words = shlex.split(text)
    except ValueError:
        return None
    if len(words) < 3 or words[0] not in ("python", "python3"):
        return None
    page, run_file, *options = words[1:]
    if not page.endswith(".py") or len(options) % 2 or set(options[::2]) - {"--set"}:
        return None
    return Entrypoint(page, run_file, tuple(options[1::2]))


def mounted_config(job: RayResource, path: str) -> tuple[str, str]:
    """The ConfigMap and its key that the head sees at `path`; empty names where it sees none."""
    mounts = {mount: name for name, mount in job.head.mount_paths.items()}
    name = mounts.get(str(PurePosixPath(path).parent), "")
    for volume in list_at(job.head.pod, "volumes"):
        if name and text_at(volume, "name") == name:
            return text_at(volume, "configMap", "name"), PurePosixPath(path).name
    return "", ""


def find_run_text(job: RayResource, documents: Iterable[Document]) -> RunText | None:
    """The run file of a RayJob, as a ConfigMap of the same files holds it."""
    entrypoint = parse_entrypoint(text_at(job.spec, "entrypoint"))
    if entrypoint is None:
        return None
    name, key = mounted_config(job, entrypoint.run_file)
    for document in documents:
        text = text_at(document.value, "data", key)
        if text and (document.kind, document.name) == ("ConfigMap", name):
            return RunText(text, f"data.{key} of the ConfigMap {name}")
    return None


def with_served_settings(run: Run, document: Document) -> Run:
    """The run with the serving settings that a RayService has itself, where it has any.

    Which model it serves is no setting of those: that of the run stays.
    """
    if document.kind != "RayService":
        return run
    for application in applications_of(RayResource(document)):
        try:
            serving = parse_section(ServingConfig, value_at(application, "args", "serving"), "serving")
        except ConfigError:
            # The rule on Serve's configuration says what is wrong with them.
            return run
        served = serving.model_copy(update={"model": run.serving.model})
        return run.model_copy(update={"serving": served})
    return run


def pools_of(document: Document) -> list[Pool]:
    """The groups of workers of a Ray resource, or the node types of a launcher's file but the head's."""
    if document.kind != LAUNCHER:
        return [
            Pool(f"{group.path}.maxReplicas", group.name, group.limit("cpu"), group.gpus, group.most)
            for group in RayResource(document).workers
        ]
    head = text_at(document.value, "head_node_type")
    return [
        Pool(
            f"available_node_types.{name}.max_workers",
            name,
            amount(value_at(kind, "resources", "CPU") or 0),
            int(number_at(kind, "resources", "GPU")),
            int(number_at(kind, "max_workers")),
            is_known=bool(table_at(kind, "resources")),
        )
        for name, kind in table_at(document.value, "available_node_types").items()
        if name != head
    ]


def pools_for(role: str, pools: Sequence[Pool], on_gpu: bool) -> list[Pool]:
    """The pools that a stage's workers go to: that of its role where there is one, else all that have what
    it needs."""
    named = [pool for pool in pools if pool.name == role]
    return named or [pool for pool in pools if pool.gpus or not on_gpu]


def slots(pools: Iterable[Pool], on_gpu: bool) -> int:
    """How many workers of a GPU or a CPU each all nodes of the pools can have."""
    return sum(pool.most * (pool.gpus if on_gpu else int(pool.cpus)) for pool in pools)
