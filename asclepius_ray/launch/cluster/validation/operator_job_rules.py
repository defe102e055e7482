"""What KubeRay's operator refuses of a RayJob or RayService that the API server has taken. Pure."""

from collections.abc import Iterator
from itertools import pairwise

import yaml

from asclepius_ray.launch.cluster.validation.findings import Trouble
from asclepius_ray.launch.cluster.validation.manifests import RayResource
from asclepius_ray.launch.cluster.validation.operator_cluster_rules import Rule
from asclepius_ray.launch.cluster.validation.reading import (
    flag_at,
    list_at,
    number_at,
    table_at,
    text_at,
    value_at,
)

UPGRADES = ("NewCluster", "NewClusterWithIncrementalUpgrade", "None")
INCREMENTAL = "NewClusterWithIncrementalUpgrade"
DELETIONS_IN_ORDER = ("DeleteWorkers", "DeleteCluster", "DeleteSelf")


def _one_cluster(job: RayResource) -> Iterator[Trouble]:
    own, selected = "rayClusterSpec" in job.spec, bool(table_at(job.spec, "clusterSelector"))
    if own == selected:
        said = "it names a cluster and brings one" if own else "it has no cluster"
        yield Trouble("spec", said, "give either rayClusterSpec or clusterSelector")
    if selected and not text_at(job.spec, "clusterSelector", "ray.io/cluster"):
        yield Trouble("spec.clusterSelector", "it names no cluster", "set ray.io/cluster to its name")


def _suspend(job: RayResource) -> Iterator[Trouble]:
    if not flag_at(job.spec, "suspend"):
        return
    if not flag_at(job.spec, "shutdownAfterJobFinishes"):
        yield Trouble(
            "spec.suspend", "it needs shutdownAfterJobFinishes", "set shutdownAfterJobFinishes: true"
        )
    if table_at(job.spec, "clusterSelector"):
        yield Trouble("spec.suspend", "a cluster that is there already is not suspended", "remove it")


def _time_to_live(job: RayResource) -> Iterator[Trouble]:
    seconds, path = number_at(job.spec, "ttlSecondsAfterFinished"), "spec.ttlSecondsAfterFinished"
    if seconds < 0:
        yield Trouble(path, "it is negative", "set 0 or more seconds")
    if seconds > 0 and not flag_at(job.spec, "shutdownAfterJobFinishes"):
        said = "it does nothing without shutdownAfterJobFinishes"
        yield Trouble(path, said, "set shutdownAfterJobFinishes: true, or use deletionStrategy.deletionRules")


def _deletion(job: RayResource) -> Iterator[Trouble]:
    if "deletionStrategy" not in job.spec:
        return
    path = "spec.deletionStrategy"
    strategy, rules = table_at(job.spec, "deletionStrategy"), deletion_rules(job)
    old = [key for key in ("onSuccess", "onFailure") if key in strategy]
    if rules and flag_at(job.spec, "shutdownAfterJobFinishes"):
        said = "deletionRules and shutdownAfterJobFinishes exclude each other"
        yield Trouble(f"{path}.deletionRules", said, "remove one of them")
    if rules and old:
        yield Trouble(f"{path}.{old[0]}", f"{old[0]} is replaced by deletionRules", "remove it")
    if not rules and len(old) < 2:
        yield Trouble(path, "it says nothing", "write deletionRules, or remove it")


def _deletion_condition(job: RayResource) -> Iterator[Trouble]:
    for place, rule in enumerate(deletion_rules(job)):
        path = f"spec.deletionStrategy.deletionRules[{place}]"
        condition = table_at(rule, "condition")
        if len({"jobStatus", "jobDeploymentStatus"} & set(condition)) != 1:
            said = "it must name one of jobStatus and jobDeploymentStatus"
            yield Trouble(f"{path}.condition", said, "leave the other out")
        if number_at(condition, "ttlSeconds") < 0:
            yield Trouble(f"{path}.condition.ttlSeconds", "it is negative", "set 0 or more seconds")
        if text_at(rule, "policy") == "DeleteWorkers" and job.autoscales:
            said = "the autoscaler's workers cannot be deleted by a rule"
            yield Trouble(f"{path}.policy", said, "use DeleteCluster; idle workers go by themselves")


def _deletion_order(job: RayResource) -> Iterator[Trouble]:
    path = "spec.deletionStrategy.deletionRules"
    by_status: dict[str, dict[str, float]] = {}
    for place, rule in enumerate(deletion_rules(job)):
        policy, condition = text_at(rule, "policy"), table_at(rule, "condition")
        status = text_at(condition, "jobStatus") or text_at(condition, "jobDeploymentStatus")
        known = by_status.setdefault(status, {})
        if policy in known:
            yield Trouble(f"{path}[{place}]", f"{policy} on {status} is there twice", "remove one of them")
        known[policy] = number_at(condition, "ttlSeconds")
    for status, known in by_status.items():
        ordered = [(policy, known[policy]) for policy in DELETIONS_IN_ORDER if policy in known]
        for (first, sooner), (second, later) in pairwise(ordered):
            if later < sooner:
                said = f"on {status} {second} comes after {later:g} s and {first} after {sooner:g} s"
                yield Trouble(path, said, f"let {second} come later")


def _backoff(job: RayResource) -> Iterator[Trouble]:
    retries, path = number_at(job.spec, "backoffLimit"), "spec.backoffLimit"
    if retries < 0:
        yield Trouble(path, "it is negative", "set 0 or more retries")
    if retries > 0 and table_at(job.spec, "clusterSelector"):
        yield Trouble(path, "a retry needs a cluster of its own", "remove it, or give rayClusterSpec")
    if retries > 0 and mode_of(job) == "InteractiveMode":
        yield Trouble(path, "an interactive job is not retried", "remove it")


def _sidecar(job: RayResource) -> Iterator[Trouble]:
    if mode_of(job) != "SidecarMode":
        return
    for key in ("submitterPodTemplate", "submitterConfig"):
        if key in job.spec:
            yield Trouble(
                f"spec.{key}", "in SidecarMode the submitter is a container of the head", "remove it"
            )
    if table_at(job.spec, "clusterSelector"):
        advice = "give rayClusterSpec; a cluster that is there already takes jobs by asclepius submit"
        yield Trouble("spec.clusterSelector", "SidecarMode needs its own cluster", advice)
    if text_at(job.head.pod, "restartPolicy") not in ("", "Never"):
        path = f"{job.head.pod_path}.restartPolicy"
        yield Trouble(path, "a head that restarts would submit the job again", "set Never")


def _deadlines(job: RayResource) -> Iterator[Trouble]:
    for key in ("activeDeadlineSeconds", "preRunningDeadlineSeconds"):
        if number_at(job.spec, key, default=1) <= 0:
            yield Trouble(f"spec.{key}", "no time is left by it", "set a positive number of seconds")


def _runtime_environment(job: RayResource) -> Iterator[Trouble]:
    try:
        value = yaml.safe_load(text_at(job.spec, "runtimeEnvYAML"))
    except yaml.YAMLError:
        value = "no YAML"
    if value is not None and not isinstance(value, dict):
        yield Trouble("spec.runtimeEnvYAML", "it is no mapping in YAML", "write Ray's runtime_env there")


def _head_name(service: RayResource) -> Iterator[Trouble]:
    if value_at(service.head.value, "headService", "metadata", "name"):
        path = f"{service.head.path}.headService.metadata.name"
        yield Trouble(path, "two clusters are there during an upgrade and cannot share a name", "remove it")


def _upgrade_type(service: RayResource) -> Iterator[Trouble]:
    chosen = value_at(service.spec, "upgradeStrategy", "type")
    if chosen is not None and chosen not in UPGRADES:
        said = f"{chosen!r} is no kind of upgrade"
        yield Trouble("spec.upgradeStrategy.type", said, f"use one of {', '.join(UPGRADES)}")


def _incremental_upgrade(service: RayResource) -> Iterator[Trouble]:
    if text_at(service.spec, "upgradeStrategy", "type") != INCREMENTAL:
        return
    path = "spec.upgradeStrategy.clusterUpgradeOptions"
    options = table_at(service.spec, "upgradeStrategy", "clusterUpgradeOptions")
    if not service.autoscales:
        advice = f"set {service.cluster_path}.enableInTreeAutoscaling: true"
        yield Trouble("spec.upgradeStrategy.type", "an incremental upgrade needs the autoscaler", advice)
    if not options:
        yield Trouble(path, "an incremental upgrade needs it", "name gateway, step and interval")
        return
    if not text_at(options, "gatewayClassName"):
        yield Trouble(f"{path}.gatewayClassName", "no gateway is named", "name the class of your gateway")
    surge = number_at(options, "maxSurgePercent", default=100)
    step = number_at(options, "stepSizePercent", default=-1)
    if not 0 <= step <= surge <= 100:
        said = f"steps of {step:g} % and a surge of {surge:g} % are not 0 <= step <= surge <= 100"
        yield Trouble(f"{path}.stepSizePercent", said, "set it to maxSurgePercent or less")
    if number_at(options, "intervalSeconds") <= 0:
        yield Trouble(f"{path}.intervalSeconds", "no time lies between two steps", "set 1 or more")


def _deletion_delay(service: RayResource) -> Iterator[Trouble]:
    if number_at(service.spec, "rayClusterDeletionDelaySeconds") < 0:
        yield Trouble("spec.rayClusterDeletionDelaySeconds", "it is negative", "set 0 or more seconds")


def mode_of(job: RayResource) -> str:
    """How a job is submitted; the operator's own choice where nothing is said."""
    return text_at(job.spec, "submissionMode") or "K8sJobMode"


def deletion_rules(job: RayResource) -> list[dict[str, object]]:
    """What a job says of its end, rule by rule."""
    rules = list_at(job.spec, "deletionStrategy", "deletionRules")
    return [rule for rule in rules if isinstance(rule, dict)]


JOB_RULES: dict[str, Rule] = {
    "operator-one-cluster": _one_cluster,
    "operator-suspend": _suspend,
    "operator-time-to-live": _time_to_live,
    "operator-deletion": _deletion,
    "operator-deletion-condition": _deletion_condition,
    "operator-deletion-order": _deletion_order,
    "operator-backoff": _backoff,
    "operator-sidecar": _sidecar,
    "operator-deadlines": _deadlines,
    "operator-runtime-environment": _runtime_environment,
}
SERVICE_RULES: dict[str, Rule] = {
    "operator-head-name": _head_name,
    "operator-upgrade-type": _upgrade_type,
    "operator-incremental-upgrade": _incremental_upgrade,
    "operator-deletion-delay": _deletion_delay,
}
