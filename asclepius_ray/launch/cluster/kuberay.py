"""A profile and a run → RayCluster, RayJob and RayService, each with what stands beside it. Pure."""

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from asclepius_ray.errors import ConfigError
from asclepius_ray.launch.cluster.api_access import api_mount
from asclepius_ray.launch.cluster.companions import (
    RUN_FILE_KEY,
    head_budget,
    run_config,
    serving_budget,
    volume_claim,
)
from asclepius_ray.launch.cluster.network_policies import network_policies
from asclepius_ray.launch.cluster.node_certificates import certificate
from asclepius_ray.launch.cluster.placing import place_run, place_service
from asclepius_ray.launch.cluster.pod_proxy import haproxy
from asclepius_ray.launch.cluster.pods import RUN_FOLDER, PodPlan, head_group, worker_group
from asclepius_ray.launch.cluster.preparing import RESTRICTED, Preparation
from asclepius_ray.launch.cluster.profile import Profile, Role, needed_grace_seconds
from asclepius_ray.launch.cluster.queues import is_kueues, queue_labels
from asclepius_ray.launch.cluster.serve_config import serve_config
from asclepius_ray.launch.cluster.yaml_text import Json, dump_documents
from asclepius_ray.run import Run, endpoints_of

API = "ray.io/v1"
JOB_ROLES: tuple[Role, ...] = ("synthesis", "teacher", "training")
SERVICE_ROLES: tuple[Role, ...] = ("serving",)
IDLE_SECONDS = 300
SWITCH_SECONDS = 60
"""How long clients may still find the old cluster of a service after the new one has taken over."""


@dataclass(frozen=True)
class RunFile:
    """A run file as it is and as it reads."""

    text: str
    run: Run
    address: str = ""
    """Where in a bucket the job reads it; "" = a ConfigMap holds it."""


def render_storage(profile: Profile) -> list[Json]:
    """The claim of the shared volume."""
    if profile.storage.volume is None:
        raise ConfigError(
            "the profile keeps its runs in a bucket, and there is no volume to claim; leave out storage"
        )
    return [volume_claim(profile.storage.volume)]


def render_cluster(profile: Profile, ray_version: str) -> list[Json]:
    """A cluster of all groups that stays, for `asclepius submit`."""
    plan = PodPlan(profile, profile.name, preparations=_certificates(profile))
    spec = _cluster_spec(plan, tuple(profile.workers), ray_version)
    policies = network_policies(profile, plan.resource, (), serves=False)
    return [*policies, head_budget(plan.resource), _resource(plan, "RayCluster", spec, spec)]


def render_job(profile: Profile, file: RunFile, ray_version: str) -> list[Json]:
    """One job on a cluster of its own, which goes after it."""
    name = f"{profile.name}-{profile.job.name}"
    plan = PodPlan(
        profile,
        name,
        run_config="" if file.address else f"{name}-run",
        preparations=_certificates(profile),
    )
    if plan.run_config:
        _refuse_headers(file.run)
    cluster = _cluster_spec(plan, JOB_ROLES, ray_version)
    spec: Json = {
        "entrypoint": build_entrypoint(profile, file),
        # The submitter goes with the head's pod: nothing submits the job again while the first one works.
        "submissionMode": "SidecarMode",
        "backoffLimit": profile.job.retries,
        "preRunningDeadlineSeconds": profile.job.start_seconds,
        "activeDeadlineSeconds": profile.job.longest_seconds,
        **_deletion(profile),
        "rayClusterSpec": cluster,
    }
    policies = network_policies(profile, name, ports_asked(file.run), serves=False)
    job = _resource(plan, "RayJob", spec, cluster)
    beside = [run_config(plan.run_config, file.text)] if plan.run_config else []
    return [*beside, *policies, head_budget(name), job]


def render_service(profile: Profile, file: RunFile, ray_version: str, revision: str = "") -> list[Json]:
    """The run's model behind an address that stays, with HAProxy in front on every node.

    `revision` tells a model from the one that was at its place before.
    """
    serving = file.run.serving
    if serving.replicas.fewest == 0:
        raise ConfigError(
            f"serving.replicas = [0, {serving.replicas.most}]: without a replica no pod of a RayService is "
            "ready, and no request reaches one that could bring it back; set the fewest to 1, or serve by "
            "`asclepius submit serve` on a cluster of nodes"
        )
    configuration = serve_config(place_service(file.run, profile.storage), revision)
    asking = {endpoint.api_key_env for endpoint in endpoints_of(file.run).values()}
    profile = _with_time_for_streams(profile, serving.drain_seconds)
    plan = PodPlan(
        profile,
        f"{profile.name}-model",
        reads_only=not serving.audit,
        withheld=frozenset(asking - {serving.api_key_env}),
        preparations=(*_certificates(profile), haproxy(serving.drain_seconds)),
    )
    cluster = _cluster_spec(plan, SERVICE_ROLES, ray_version)
    spec: Json = {
        # A new cluster takes over when it is ready; the old one then ends its streams.
        "upgradeStrategy": {"type": "NewCluster"},
        "rayClusterDeletionDelaySeconds": math.ceil(serving.drain_seconds) + SWITCH_SECONDS,
        "excludeHeadPodFromServeSvc": True,
        "serveConfigV2": dump_documents([configuration]),
        "rayClusterConfig": cluster,
    }
    fewest = profile.workers["serving"].fewest
    return [
        *network_policies(profile, plan.resource, (), serves=True),
        head_budget(plan.resource),
        serving_budget(plan.resource, fewest),
        _resource(plan, "RayService", spec, cluster),
    ]


def ports_asked(run: Run) -> list[int]:
    """The TCP ports of the endpoints that a run asks."""
    addresses = [urlsplit(endpoint.base_url) for endpoint in endpoints_of(run).values()]
    found = {
        address.port or (443 if address.scheme == "https" else 80)
        for address in addresses
        if address.hostname
    }
    return sorted(found)


def _certificates(profile: Profile) -> tuple[Preparation, ...]:
    return (certificate(profile.tls),) if profile.tls else ()


def _with_time_for_streams(profile: Profile, serving_drain_seconds: float) -> Profile:
    """The profile with what a pod needs that may finish its answers: the drain of its hook, and Ray's own."""
    shutdown = profile.shutdown
    drain = max(shutdown.drain_seconds, math.ceil(serving_drain_seconds))
    needed = needed_grace_seconds(drain, hook_seconds=drain)
    times = {"drain_seconds": drain, "grace_seconds": max(shutdown.grace_seconds, needed)}
    return profile.model_copy(update={"shutdown": shutdown.model_copy(update=times)})


def build_entrypoint(profile: Profile, file: RunFile) -> str:
    """The command of a RayJob: a page of the image's, the run file as pods see it, and the run's places."""
    page = f"{profile.image.project_folder}/jobs/{profile.job.name}.py"
    places = place_run(profile.job.name, file.run, profile.storage)
    settings = [f"--set {shlex.quote(f'{place.setting}={place.path}')}" for place in places]
    run_file = shlex.quote(file.address) if file.address else f"{RUN_FOLDER}/{RUN_FILE_KEY}"
    return " ".join(["python", page, run_file, *settings])


def _resource(plan: PodPlan, kind: str, spec: Json, cluster: Json) -> Json:
    metadata: Json = {"name": plan.resource}
    is_gang = all(group["minReplicas"] for group in cluster["workerGroupSpecs"])
    if labels := queue_labels(plan.profile.queue, plan.resource, is_gang):
        metadata["labels"] = labels
    return {"apiVersion": API, "kind": kind, "metadata": metadata, "spec": spec}


def _cluster_spec(plan: PodPlan, roles: Sequence[Role], ray_version: str) -> Json:
    profile = plan.profile
    groups = {role: profile.workers[role] for role in roles if role in profile.workers}
    if not groups:
        raise ConfigError(
            f"the profile has no workers for {plan.resource}; add one of "
            + ", ".join(f"[workers.{role}]" for role in roles)
        )
    secret = profile.authentication.secret
    return {
        "rayVersion": ray_version,
        # Written out, because leaving it out means no authentication.
        "authOptions": {"mode": "token"} | ({"secretName": secret} if secret else {}),
        **_autoscaling(plan),
        "headGroupSpec": head_group(plan),
        "workerGroupSpecs": [worker_group(plan, role, group) for role, group in groups.items()],
    }


def _autoscaling(plan: PodPlan) -> Json:
    """A container of the head's pod, which speaks with Ray as the nodes do; none where Kueue counts pods."""
    if is_kueues(plan.profile.queue):
        return {"enableInTreeAutoscaling": False}
    options: Json = {
        "version": "v2",
        "idleTimeoutSeconds": IDLE_SECONDS,
        "upscalingMode": "Default",
        "securityContext": RESTRICTED,
        "volumeMounts": [api_mount()],
    }
    if plan.profile.tls:
        tls = certificate(plan.profile.tls)
        options["env"] = tls.environment()
        options["volumeMounts"].append(tls.mount(read_only=True))
    return {"enableInTreeAutoscaling": True, "autoscalerOptions": options}


def _deletion(profile: Profile) -> Json:
    job = profile.job
    if is_kueues(profile.queue):
        # One time for every end: its jobs have no rules of deletion.
        return {"shutdownAfterJobFinishes": True, "ttlSecondsAfterFinished": job.keep_finished_seconds}
    rules = [
        {
            "condition": {"jobStatus": "SUCCEEDED", "ttlSeconds": job.keep_finished_seconds},
            "policy": "DeleteCluster",
        },
        {
            # Not the job's own status, which stays RUNNING when a deadline ends it.
            "condition": {"jobDeploymentStatus": "Failed", "ttlSeconds": job.keep_failed_seconds},
            "policy": "DeleteCluster",
        },
    ]
    return {"deletionStrategy": {"deletionRules": rules}}


def _refuse_headers(run: Run) -> None:
    for role, endpoint in endpoints_of(run).items():
        if endpoint.headers:
            raise ConfigError(
                f"{role}.headers stand in the run file, and a ConfigMap is no place for what may be a key; "
                f"leave them out and give the key by {role}.api_key_env"
            )
