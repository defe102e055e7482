"""What the operator takes of a RayJob that would start twice or never, or whose cluster would stay. Pure."""

from collections.abc import Iterator

from asclepius_ray.launch.cluster.validation.findings import Trouble
from asclepius_ray.launch.cluster.validation.manifests import RayResource
from asclepius_ray.launch.cluster.validation.operator_cluster_rules import Rule
from asclepius_ray.launch.cluster.validation.operator_job_rules import deletion_rules, mode_of
from asclepius_ray.launch.cluster.validation.reading import flag_at, text_at

DELETIONS = ("DeleteCluster", "DeleteSelf")
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


def _cluster_goes(job: RayResource) -> Iterator[Trouble]:
    """Of a job with its own cluster; by its own status one that a deadline ends is RUNNING for ever."""
    if not job.cluster or flag_at(job.spec, "shutdownAfterJobFinishes"):
        return
    gone = [rule for rule in deletion_rules(job) if text_at(rule, "policy") in DELETIONS]
    ends = [("jobDeploymentStatus", "Failed", "has failed, at its deadline too")]
    ends.append(("jobStatus", "SUCCEEDED", "has succeeded"))
    for key, status, when in ends:
        if not any(text_at(rule, "condition", key) == status for rule in gone):
            said = f"nothing deletes the cluster of a job that {when}, and its nodes go on costing"
            advice = f"write a deletion rule DeleteCluster on {key} {status}, or shutdownAfterJobFinishes"
            yield Trouble("spec.deletionStrategy.deletionRules", said, advice)


OUR_JOB_RULES: dict[str, Rule] = {"submitted-once": _submitted_once, "job-cluster-goes": _cluster_goes}
