"""What the operator takes of a RayJob although it would be started twice or never. Pure."""

from collections.abc import Iterator

from asclepius_ray.launch.cluster.validation.findings import Trouble
from asclepius_ray.launch.cluster.validation.manifests import RayResource
from asclepius_ray.launch.cluster.validation.operator_cluster_rules import Rule
from asclepius_ray.launch.cluster.validation.operator_job_rules import mode_of

SIDECAR = "SidecarMode"
OTHER_MODES = {
    # kuberay#4824
    "HTTPMode": "the operator submits the job again when it has lost the head, and it would run twice",
    "K8sJobMode": "the submitter's pod, also where nothing is said, has none of our labels, and the policies "
    "let it in to no head: the job would never start",
    "InteractiveMode": "nobody submits the job",
}


def _submitted_once(job: RayResource) -> Iterator[Trouble]:
    mode = mode_of(job)
    if mode != SIDECAR:
        said = OTHER_MODES.get(mode, f"KubeRay knows no {mode!r}")
        yield Trouble("spec.submissionMode", said, f"set {SIDECAR}")


OUR_JOB_RULES: dict[str, Rule] = {"submitted-once": _submitted_once}
