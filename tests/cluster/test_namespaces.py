"""What belongs to a Ray resource is in its namespace, or is found not to be."""

from collections.abc import Callable

from committed import documents_of

from asclepius_ray.launch.cluster.validation.manifests import Document
from asclepius_ray.launch.cluster.validation.validating import Knowledge, validate


def _moved(documents: list[Document], moves: Callable[[Document], bool]) -> list[Document]:
    """The documents, some of them in a namespace of their own."""
    return [
        Document(one.file, {**one.value, "metadata": {**one.value["metadata"], "namespace": "ray"}})
        if moves(one)
        else one
        for one in documents
    ]


def test_what_stays_behind_where_a_ray_resource_alone_is_moved_is_found() -> None:
    moved = _moved(documents_of("rayservice.yaml"), lambda one: one.kind == "RayService")
    report = validate(moved, Knowledge())
    left = [finding for finding in report.findings if finding.rule == "one-namespace"]
    assert {(finding.file, finding.path) for finding in left} == {("rayservice.yaml", "metadata.namespace")}
    assert all("set 'ray'" in finding.advice for finding in left)
    # The claim that is here is the job's: no pod mounts one of another namespace.
    assert any("the claim asclepius-data that rayservice.yaml mounts" in line for line in report.unchecked)


def test_files_that_are_moved_as_a_whole_are_no_mistake() -> None:
    documents = documents_of("rayservice.yaml")
    for moved in (
        _moved(documents, lambda one: True),
        _moved(documents, lambda one: one.file == "rayservice.yaml"),
    ):
        assert [str(finding) for finding in validate(moved, Knowledge()).findings] == []


def test_what_belongs_to_others_may_be_in_a_namespace_of_its_own() -> None:
    selector = {"matchLabels": {"app": "prometheus"}}
    others = [
        {"kind": "ConfigMap", "apiVersion": "v1", "data": {}},
        {"kind": "PodDisruptionBudget", "apiVersion": "policy/v1", "spec": {"selector": selector}},
        {"kind": "NetworkPolicy", "apiVersion": "networking.k8s.io/v1", "spec": {"podSelector": selector}},
        {
            "kind": "Ingress",
            "apiVersion": "networking.k8s.io/v1",
            "spec": {"defaultBackend": {"service": {"name": "grafana", "port": {"number": 3000}}}},
        },
    ]
    documents = [
        Document("watching.yaml", {**other, "metadata": {"name": "watching", "namespace": "monitoring"}})
        for other in others
    ]
    findings = validate([*documents_of("rayjob.yaml"), *documents], Knowledge()).findings
    assert [str(finding) for finding in findings if finding.rule == "one-namespace"] == []
