"""A profile's head and workers → pod templates of KubeRay's groups. Pure.

Every pod runs without root, holds its keys by the name of a secret, and has the time to drain and save.
"""

from dataclasses import dataclass

from asclepius_ray.launch.cluster.api_access import api_volume
from asclepius_ray.launch.cluster.preparing import RESTRICTED, Preparation
from asclepius_ray.launch.cluster.profile import (
    Machine,
    Profile,
    Role,
    WorkerGroup,
    idle_seconds,
)
from asclepius_ray.launch.cluster.queues import is_kueues
from asclepius_ray.launch.cluster.yaml_text import Json
from asclepius_ray.launch.stopping import JOB_STOP_SECONDS

RUN_FOLDER = "/etc/asclepius"
SAFE_TO_EVICT = "cluster-autoscaler.kubernetes.io/safe-to-evict"
DRAIN_VARIABLE = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
STOP_VARIABLE = "RAY_JOB_STOP_WAIT_TIME_S"
GPU = "nvidia.com/gpu"
USER, GROUP = 1000, 100
"""Of the user `ray` in Ray's images."""


@dataclass(frozen=True)
class PodPlan:
    """What the pods of one Ray resource have in common."""

    profile: Profile
    resource: str
    """The resource's name."""
    run_config: str = ""
    """The ConfigMap with the run file, "" where pods need none."""
    reads_only: bool = False
    """Whether the shared volume is only read."""
    withheld: frozenset[str] = frozenset()
    """Keys of the profile that these pods have no use for."""
    preparations: tuple[Preparation, ...] = ()
    """What is done before Ray starts."""


def head_group(plan: PodPlan) -> Json:
    """The head: it stays, and takes no work."""
    template = _template(plan, "head", plan.profile.head, 0)
    template["metadata"]["annotations"] = {SAFE_TO_EVICT: "false"}
    template["spec"] |= _off_spot_nodes(plan.profile)
    if not is_kueues(plan.profile.queue):
        # Of the autoscaler's container, which the operator adds.
        template["spec"].setdefault("volumes", []).append(api_volume())
    return {"rayStartParams": {"num-cpus": "0"}, "template": template}


def worker_group(plan: PodPlan, role: Role, group: WorkerGroup) -> Json:
    """One group of workers, from its fewest to its most; with Kueue all of them from the start."""
    template = _template(plan, "worker", group, group.gpus)
    spot = plan.profile.cloud.spot_labels if group.spot else {}
    tolerations = [
        {"key": key, "operator": "Equal", "value": value, "effect": "NoSchedule"}
        for key, value in spot.items()
    ]
    if group.gpus:
        tolerations.append({"key": GPU, "operator": "Exists", "effect": "NoSchedule"})
    if tolerations:
        template["spec"]["tolerations"] = tolerations
    if spot:
        template["spec"]["nodeSelector"] = {**group.node_labels, **spot}
    elif not group.spot:
        template["spec"] |= _off_spot_nodes(plan.profile)
    is_fixed = is_kueues(plan.profile.queue)
    fewest = group.most if is_fixed else group.fewest
    return {
        "groupName": role,
        "replicas": fewest,
        "minReplicas": fewest,
        "maxReplicas": group.most,
        **({} if is_fixed else {"idleTimeoutSeconds": idle_seconds(role, group)}),
        "rayStartParams": {},
        "template": template,
    }


def labels_of(resource: str, component: str) -> dict[str, str]:
    """The labels of a pod, by which budgets and policies select it."""
    return {**labels_of_all(resource), "app.kubernetes.io/component": component}


def labels_of_all(resource: str) -> dict[str, str]:
    """What all pods of one resource have in common, also of the two clusters of an upgrade.

    The name stays KubeRay's own: by `app.kubernetes.io/name: kuberay` its service finds the head.
    """
    return {"app.kubernetes.io/part-of": "asclepius-ray", "app.kubernetes.io/instance": resource}


def _off_spot_nodes(profile: Profile) -> Json:
    """Keeps a pod from spot nodes, also from those that carry the labels and not the taints."""
    spot = profile.cloud.spot_labels
    if not spot:
        return {}
    others = [{"key": key, "operator": "NotIn", "values": [value]} for key, value in spot.items()]
    required = {"nodeSelectorTerms": [{"matchExpressions": others}]}
    return {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}}


def _template(plan: PodPlan, component: str, machine: Machine, gpus: int) -> Json:
    profile = plan.profile
    spec: Json = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": profile.shutdown.grace_seconds,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": GROUP,
            "fsGroup": GROUP,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    if profile.cloud.role:
        spec["serviceAccountName"] = profile.cloud.role
    if profile.image.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in profile.image.pull_secrets]
    if machine.node_labels:
        spec["nodeSelector"] = dict(machine.node_labels)
    if plan.preparations:
        image = profile.image.name
        spec["initContainers"] = [preparation.container(image) for preparation in plan.preparations]
    spec["containers"] = [_container(plan, component, machine, gpus)]
    if volumes := _volumes(plan):
        spec["volumes"] = volumes
    return {"metadata": {"labels": labels_of(plan.resource, component)}, "spec": spec}


def _drained_first(profile: Profile) -> Json:
    """Before the pod is ended Ray is told, for as long as its own drain: what is left of the grace period is
    that drain again, for a node that was not idle yet."""
    command = ["asclepius", "drain-watch", "--now", "--grace-seconds", str(profile.shutdown.drain_seconds)]
    return {"lifecycle": {"preStop": {"exec": {"command": command}}}}


def _container(plan: PodPlan, component: str, machine: Machine, gpus: int) -> Json:
    amounts: Json = {"cpu": str(machine.cpus), "memory": f"{machine.memory_gib}Gi"}
    if gpus:
        amounts[GPU] = str(gpus)
    container: Json = {
        "name": f"ray-{component}",
        "image": plan.profile.image.name,
        "securityContext": RESTRICTED,
        "env": _environment(plan),
        "resources": {"requests": amounts, "limits": dict(amounts)},
        **({} if component == "head" else _drained_first(plan.profile)),
    }
    if mounts := _mounts(plan):
        container["volumeMounts"] = mounts
    return container


def _environment(plan: PodPlan) -> list[Json]:
    profile = plan.profile
    variables: list[Json] = [
        {"name": DRAIN_VARIABLE, "value": str(profile.shutdown.drain_seconds)},
        {"name": STOP_VARIABLE, "value": str(JOB_STOP_SECONDS)},
    ]
    if profile.storage.volume and not plan.reads_only:
        variables.append({"name": "HF_HOME", "value": f"{profile.storage.volume.folder}/huggingface"})
    if profile.storage.bucket and profile.storage.bucket.endpoint:
        # Else S3 clients wait for Amazon's address of keys, which a network that is not Amazon's may drop.
        variables.append({"name": "AWS_EC2_METADATA_DISABLED", "value": "true"})
    secret = profile.secrets.secret
    given: dict[str, Json] = {name: {} for name in profile.secrets.required}
    given |= {name: {"optional": True} for name in profile.secrets.optional}
    for name, options in given.items():
        if name not in plan.withheld:
            place = {"name": secret, "key": name, **options}
            variables.append({"name": name, "valueFrom": {"secretKeyRef": place}})
    return variables + [
        variable for preparation in plan.preparations for variable in preparation.environment()
    ]


def _mounts(plan: PodPlan) -> list[Json]:
    mounts: list[Json] = []
    if plan.profile.storage.volume:
        data: Json = {"name": "data", "mountPath": plan.profile.storage.volume.folder}
        mounts.append(data | ({"readOnly": True} if plan.reads_only else {}))
    if plan.run_config:
        mounts.append({"name": "run-file", "mountPath": RUN_FOLDER, "readOnly": True})
    return mounts + [preparation.mount() for preparation in plan.preparations]


def _volumes(plan: PodPlan) -> list[Json]:
    volumes: list[Json] = []
    if volume := plan.profile.storage.volume:
        volumes.append({"name": "data", "persistentVolumeClaim": {"claimName": volume.claim}})
    if plan.run_config:
        volumes.append({"name": "run-file", "configMap": {"name": plan.run_config}})
    return volumes + [volume for preparation in plan.preparations for volume in preparation.volumes()]
