"""What opens a Kubernetes cluster to the outside: an Ingress' backends, certificates by annotation. Pure."""

from collections.abc import Iterator

from asclepius_ray.launch.cluster.validation.manifests import Document
from asclepius_ray.launch.cluster.validation.reading import list_at, table_at, text_at
from asclepius_ray.launch.cluster.yaml_text import Json

CERTIFICATES = (
    "alb.ingress.kubernetes.io/certificate-arn",
    "networking.gke.io/managed-certificates",
    "networking.gke.io/certmap",
    "ingress.gcp.kubernetes.io/pre-shared-cert",
    "service.beta.kubernetes.io/aws-load-balancer-ssl-cert",
)
"""Annotations by which Amazon's and Google's balancers are given a certificate: TLS ends there."""


def backends_of(document: Document) -> Iterator[tuple[str, Json]]:
    """What an Ingress leads to, each with its path; nothing of another kind."""
    if document.kind != "Ingress":
        return
    if default := table_at(document.value, "spec", "defaultBackend"):
        yield "spec.defaultBackend", default
    for place, rule in enumerate(list_at(document.value, "spec", "rules")):
        for number, path in enumerate(list_at(rule, "http", "paths")):
            yield f"spec.rules[{place}].http.paths[{number}].backend", table_at(path, "backend")


def has_certificate(document: Document) -> bool:
    """Whether an annotation names a certificate."""
    annotations = table_at(document.value, "metadata", "annotations")
    return any(text_at(annotations, name) for name in CERTIFICATES)
