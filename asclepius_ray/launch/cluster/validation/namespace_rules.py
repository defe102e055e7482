"""Whether what belongs to a Ray resource is in the resource's own namespace. Pure."""

from collections.abc import Iterator, Sequence

from asclepius_ray.launch.cluster.validation.doors import backends_of
from asclepius_ray.launch.cluster.validation.findings import Trouble
from asclepius_ray.launch.cluster.validation.manifests import CLUSTER_KEYS, Document, resources_in
from asclepius_ray.launch.cluster.validation.policies import matches, selects
from asclepius_ray.launch.cluster.validation.reading import list_at, text_at, value_at
from asclepius_ray.launch.cluster.validation.set_rules import SetRule

COMPANIONS = {
    "ConfigMap": "its pods do not start",
    "Ingress": "it leads nowhere",
    "NetworkPolicy": "it closes none of its pods",
    "PersistentVolumeClaim": "its pods do not start",
    "PodDisruptionBudget": "it keeps none of its pods",
}
"""What acts in its own namespace alone, and what happens to the Ray resource where that is another.

Services and secrets are left out: those of other namespaces are rightly given beside a Ray resource's.
"""


def _one_namespace(document: Document, others: Sequence[Document]) -> Iterator[Trouble]:
    if document.kind not in COMPANIONS:
        return
    theirs = [one for one in _resources_beside(document, others) if _is_of(document, one)]
    if theirs and document.namespace not in {one.namespace for one in theirs}:
        nearest = theirs[0]
        said = (
            f"it is in {_shown(document.namespace)}, and the {nearest.kind} {nearest.name} in "
            f"{_shown(nearest.namespace)}: {COMPANIONS[document.kind]}"
        )
        advice = f"set {nearest.namespace!r}" if nearest.namespace else "leave it out"
        yield Trouble("metadata.namespace", said, f"{advice}, or move the {nearest.kind}")


def _resources_beside(document: Document, others: Sequence[Document]) -> list[Document]:
    """The Ray resources of the document's file; where that has none, those of all files."""
    found = [one for one in others if one.kind in CLUSTER_KEYS]
    return [one for one in found if one.file == document.file] or found


def _is_of(document: Document, resource: Document) -> bool:
    """Whether the resource's pods need the document, are kept by it, or are what it leads to."""
    if document.kind == "Ingress":
        services = [text_at(backend, "service", "name") for _, backend in backends_of(document)]
        return any(name.startswith(resource.name) for name in services)
    groups = [group for found in resources_in(resource) for group in found.groups]
    if document.kind == "NetworkPolicy":
        return any(selects(document, group) for group in groups)
    if document.kind == "PodDisruptionBudget":
        selector = value_at(document.value, "spec", "selector")
        return any(matches(selector, group.labels) for group in groups)
    volumes = [volume for group in groups for volume in list_at(group.pod, "volumes")]
    sources = [("configMap", "name"), ("persistentVolumeClaim", "claimName")]
    return any(text_at(volume, *source) == document.name for volume in volumes for source in sources)


def _shown(namespace: str) -> str:
    return f"the namespace {namespace!r}" if namespace else "the one that kubectl is set to"


NAMESPACE_RULES: dict[str, SetRule] = {"one-namespace": _one_namespace}
