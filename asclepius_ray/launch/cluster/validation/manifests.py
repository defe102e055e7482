"""Files → documents, and the parts of a document that rules speak of. Pure but for reading the files."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from asclepius_ray.errors import ConfigError
from asclepius_ray.launch.cluster.pods import GPU
from asclepius_ray.launch.cluster.validation.reading import (
    amount,
    list_at,
    number_at,
    table_at,
    text_at,
    value_at,
)
from asclepius_ray.launch.cluster.yaml_text import Json, load_documents

CLUSTER_KEYS = {"RayCluster": (), "RayJob": ("rayClusterSpec",), "RayService": ("rayClusterConfig",)}
LAUNCHER = "launcher"


@dataclass(frozen=True)
class Document:
    """One document of a file."""

    file: str
    value: Json

    @property
    def kind(self) -> str:
        """Kubernetes' kind; "launcher" for a file of `ray up`, "" for what is neither."""
        if "cluster_name" in self.value or "available_node_types" in self.value:
            return LAUNCHER
        return text_at(self.value, "kind")

    @property
    def name(self) -> str:
        return text_at(self.value, "metadata", "name")

    @property
    def namespace(self) -> str:
        """The namespace that it names; "" = the one in which kubectl applies it."""
        return text_at(self.value, "metadata", "namespace")


@dataclass(frozen=True)
class Group:
    """The head's group or one of the workers'."""

    path: str
    name: str
    is_head: bool
    value: Json

    @property
    def pod(self) -> Json:
        return table_at(self.value, "template", "spec")

    @property
    def pod_path(self) -> str:
        return f"{self.path}.template.spec"

    @property
    def labels(self) -> Json:
        return table_at(self.value, "template", "metadata", "labels")

    @property
    def pod_labels(self) -> Json:
        """The labels that its pods have, with those of KubeRay's that are the same in every cluster."""
        kuberays = {
            "app.kubernetes.io/name": "kuberay",
            "app.kubernetes.io/created-by": "kuberay-operator",
            "ray.io/is-ray-node": "yes",
            "ray.io/node-type": "head" if self.is_head else "worker",
        }
        return kuberays | self.labels

    @property
    def containers(self) -> list[tuple[str, Json]]:
        """Every container with its path, Ray's own first, those that run before it last."""
        return [
            (f"{self.pod_path}.{key}[{place}]", container)
            for key in ("containers", "initContainers")
            for place, container in enumerate(list_at(self.pod, key))
            if isinstance(container, dict)
        ]

    @property
    def ray_container(self) -> Json:
        return next((found for path, found in self.containers if path.endswith(".containers[0]")), {})

    @property
    def variables(self) -> dict[str, Json]:
        """Ray's container's variables by name."""
        found = [variable for variable in list_at(self.ray_container, "env") if isinstance(variable, dict)]
        return {text_at(variable, "name"): variable for variable in found}

    @property
    def preparations(self) -> list[Json]:
        """The containers that run before Ray's."""
        return [found for path, found in self.containers if ".initContainers[" in path]

    @property
    def mount_paths(self) -> dict[str, str]:
        """Where Ray's container sees each of its volumes."""
        mounts = list_at(self.ray_container, "volumeMounts")
        return {text_at(mount, "name"): text_at(mount, "mountPath") for mount in mounts}

    @property
    def most(self) -> int:
        """Nodes at the most."""
        if self.is_head:
            return 1
        return int(number_at(self.value, "maxReplicas", default=number_at(self.value, "replicas", default=1)))

    def limit(self, resource: str) -> float:
        """What one node has of "cpu" or GPUs."""
        return amount(value_at(self.ray_container, "resources", "limits", resource) or 0)

    @property
    def gpus(self) -> int:
        return int(self.limit(GPU))


@dataclass(frozen=True)
class RayResource:
    """A RayCluster, RayJob or RayService."""

    document: Document

    @property
    def kind(self) -> str:
        return self.document.kind

    @property
    def spec(self) -> Json:
        return table_at(self.document.value, "spec")

    @property
    def cluster(self) -> Json:
        return table_at(self.spec, *CLUSTER_KEYS[self.kind])

    @property
    def cluster_path(self) -> str:
        return ".".join(("spec", *CLUSTER_KEYS[self.kind]))

    @property
    def head(self) -> Group:
        return Group(
            f"{self.cluster_path}.headGroupSpec", "head", True, table_at(self.cluster, "headGroupSpec")
        )

    @property
    def workers(self) -> list[Group]:
        return [
            Group(f"{self.cluster_path}.workerGroupSpecs[{place}]", text_at(group, "groupName"), False, group)
            for place, group in enumerate(list_at(self.cluster, "workerGroupSpecs"))
            if isinstance(group, dict)
        ]

    @property
    def groups(self) -> list[Group]:
        """The head's group and the workers'; none where the job runs on a cluster that is there already."""
        return [self.head, *self.workers] if self.cluster else []

    @property
    def autoscales(self) -> bool:
        return value_at(self.cluster, "enableInTreeAutoscaling") is True


def read_files(paths: Iterable[str]) -> list[Document]:
    """Every document of the files; a ConfigError names a file that cannot be read or holds none."""
    found: list[Document] = []
    for path in paths:
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} cannot be read: {error}; give files of manifests") from None
        documents = [Document(path, value) for value in load_documents(text, path)]
        if not documents:
            raise ConfigError(f"{path} holds no document; give files of manifests")
        found += documents
    return found


def resources_in(document: Document) -> list[RayResource]:
    """The document as what KubeRay's operator acts on; none where it is something else."""
    return [RayResource(document)] if document.kind in CLUSTER_KEYS else []


def applications_of(resource: RayResource) -> list[Json]:
    """The applications of a RayService's Serve configuration; none where it is no YAML."""
    found = list_at(yaml_table(text_at(resource.spec, "serveConfigV2")), "applications")
    return [application for application in found if isinstance(application, dict)]


def yaml_table(text: str) -> Json:
    """A mapping written as a text in YAML; {} where it is none."""
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}


def walk_texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every text of a document with its path."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from walk_texts(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from walk_texts(inner, f"{path}[{place}]")
    elif isinstance(value, str):
        yield path, value
