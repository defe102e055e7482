"""Mistakes to be made in the committed files: at least one for every rule of `asclepius cluster validate`."""

from dataclasses import dataclass
from typing import Any

from committed import document

JOB, SERVICE, CLUSTER = "rayjob.yaml", "rayservice.yaml", "raycluster.yaml"
JOB_SPEC = "spec/rayClusterSpec"
JOB_HEAD, JOB_WORKER = f"{JOB_SPEC}/headGroupSpec", f"{JOB_SPEC}/workerGroupSpecs/1"
HEAD_POD, WORKER_POD = f"{JOB_HEAD}/template/spec", f"{JOB_WORKER}/template/spec"
ENTRYPOINT = document(JOB, "RayJob")["spec"]["entrypoint"]
SERVE_CONFIG = document(SERVICE, "RayService")["spec"]["serveConfigV2"]


@dataclass(frozen=True)
class Seed:
    """One mistake: what is set where, which rule must find it, and where that says it is."""

    rule: str
    file: str
    kind: str
    """As "Kind", or as "Kind/name" where the file has several."""
    path: str
    value: Any
    """`...` takes the place away."""
    found_at: str = ""
    """Where it differs from `path`."""
    also: tuple[tuple[str, Any], ...] = ()
    """What else must be set for the mistake to be one."""
    within: str = ""
    """The file that it is applied with, where that is another."""


def job(rule: str, path: str, value: Any, found_at: str = "") -> Seed:
    return Seed(rule, JOB, "RayJob", path, value, found_at)


def service(rule: str, path: str, value: Any, found_at: str = "") -> Seed:
    return Seed(rule, SERVICE, "RayService", path, value, found_at)


def cluster(rule: str, path: str, value: Any, found_at: str = "") -> Seed:
    return Seed(rule, CLUSTER, "RayCluster", path, value, found_at)


def aws(rule: str, path: str, value: Any, found_at: str = "") -> Seed:
    return Seed(rule, "aws.yaml", "launcher", path, value, found_at)


def gcp(rule: str, path: str, value: Any, found_at: str = "") -> Seed:
    return Seed(rule, "gcp.yaml", "launcher", path, value, found_at)


def serve(rule: str, old: str, new: str, found_at: str) -> Seed:
    assert old in SERVE_CONFIG
    path = "spec/serveConfigV2"
    return service(rule, path, SERVE_CONFIG.replace(old, new), f"{path}{found_at}")


def command(rule: str, more: str, found_at: str = "") -> Seed:
    return job(rule, "spec/entrypoint", f"{ENTRYPOINT} {more}", found_at)


TYPES = "available_node_types"


def _opened(rule: dict[str, Any]) -> Seed:
    """A security group that lets everybody in."""
    permissions = {"IpPermissions": [{"IpProtocol": "tcp", **rule}]}
    path = "provider/security_group"
    return aws("launcher-dashboard", path, permissions, f"{path}/IpPermissions/0")


SCHEMA_SEEDS = [
    aws("launcher-schema", "max_worker", 3),
    aws("launcher-schema", f"{TYPES}/training/min_worker", 1),
    aws("launcher-schema", f"{TYPES}/training/resources/GPU", 0.5),
    aws("launcher-schema", "provider", ...),
    aws("launcher-schema", f"{TYPES}/training/min_workers", 9, TYPES),
    gcp("launcher-schema", "head_node_type", "main", TYPES),
    job("kuberay-schema", "spec/entryPoint", "python x.py"),
    job("kuberay-schema", "spec/submissionMode", 3),
    job("kuberay-schema", "spec/deletionStrategy/deletionRules/0/policy", "DeleteAll"),
    job("kuberay-schema", JOB_HEAD, ...),
    job("kuberay-schema", f"{JOB_SPEC}/authOptions/mode", "Token"),
    job("kuberay-schema", f"{WORKER_POD}/containers/0/env/0/val", "60"),
    job("kuberay-schema", f"{JOB_HEAD}/rayStartParams/num-cpus", 0),
    service("kuberay-schema", "spec/serveConfig", ""),
    cluster("kuberay-schema", "spec/workerGroupSpecs/0/maxReplica", 3),
    job("known-document", "apiVersion", ..., "kind"),
    job("known-document", "apiVersion", "ray.io/v9"),
    job("known-document", "kind", "RayJobs"),
    Seed("known-document", JOB, "ConfigMap", "apiVersion", "v2"),
]
LAUNCHER_SEEDS = [
    aws("launcher-node-config", f"{TYPES}/training/node_config/InstanceTyp", "p5.48xlarge"),
    aws("launcher-node-config", f"{TYPES}/training/node_config/IamInstanceProfile", ...),
    gcp("launcher-node-config", f"{TYPES}/training/node_config/machineTyp", "a3"),
    gcp("launcher-node-config", f"{TYPES}/training/node_config/scheduling", [{"preemptible": True}]),
    aws("launcher-head-stays", f"{TYPES}/head/node_config/InstanceMarketOptions", {"MarketType": "spot"}),
    gcp("launcher-head-stays", f"{TYPES}/head/node_config/scheduling", [{"preemptible": True}]),
    aws("launcher-head-without-work", f"{TYPES}/head/resources/CPU", 8),
    aws("launcher-worker-limit", f"{TYPES}/training/max_workers", 9),
    aws("launcher-idle-timeout", f"{TYPES}/training/idle_timeout_s", 60),
    gcp("launcher-idle-timeout", "idle_timeout_minutes", 60),
    aws("launcher-token", "head_start_ray_commands/1", "ray start --head", "head_start_ray_commands"),
    gcp("launcher-token", "file_mounts", {}),
    aws(
        "launcher-dashboard",
        "head_start_ray_commands/1",
        "ray start --head --dashboard-host=0.0.0.0",
        "head_start_ray_commands",
    ),
    _opened({"FromPort": 8265, "ToPort": 8265, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}),
    _opened({"FromPort": 22, "ToPort": 65535, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}),
    _opened({"FromPort": 8265, "ToPort": 8265, "IpRanges": [{"CidrIp": "128.0.0.0/1"}]}),
    _opened({"FromPort": 8265, "ToPort": 8265, "Ipv6Ranges": [{"CidrIpv6": "::/0"}]}),
    _opened({"IpProtocol": "-1", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}),
    aws("launcher-local-folder", "file_mounts/project", "/srv/project"),
    aws("launcher-local-folder", "file_mounts/code", "~/project"),
    aws("launcher-local-folder", "cluster_synced_files", ["~/project"]),
    aws("launcher-local-folder", "file_mounts/code", "asclepius_ray"),
    gcp(
        "launcher-drain",
        "worker_start_ray_commands/1",
        "export RAY_AUTH_MODE=token RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=60; ray start",
        "worker_start_ray_commands",
    ),
    aws("launcher-drain", "worker_start_ray_commands/1", "ray start", "worker_start_ray_commands"),
    aws("launcher-drain", "docker/run_options", []),
    aws("launcher-image", "docker/image", "rayproject/ray:latest"),
]
OPERATOR_CLUSTER_SEEDS = [
    job("operator-name", "metadata/name", "asclepius_pipeline"),
    job("operator-name", "metadata/name", "a" * 48),
    job("operator-container", f"{WORKER_POD}/containers", []),
    job(
        "operator-resources-once",
        f"{JOB_HEAD}/resources",
        {"CPU": "0"},
        f"{JOB_HEAD}/rayStartParams/num-cpus",
    ),
    job("operator-start-labels", f"{JOB_WORKER}/rayStartParams/labels", "a=b"),
    job("operator-label-syntax", f"{JOB_WORKER}/labels", {"zone": "eu west"}),
    job(
        "operator-labels-of-pods",
        f"{JOB_HEAD}/template/metadata/labels",
        {"app.kubernetes.io/name": "asclepius-ray"},
    ),
    job("operator-labels-of-pods", f"{JOB_WORKER}/template/metadata/labels", {"ray.io/node-type": "head"}),
    job(
        "operator-redis",
        f"{HEAD_POD}/containers/0/env/6",
        {"name": "RAY_REDIS_ADDRESS", "value": "redis:6379"},
        f"{HEAD_POD}/containers/0/env",
    ),
    job("operator-redis", f"{JOB_HEAD}/rayStartParams/redis-username", "ray"),
    job(
        "operator-autoscaler-variable",
        f"{HEAD_POD}/containers/0/env/0/name",
        "RAY_enable_autoscaler_v2",
        f"{HEAD_POD}/containers/0/env",
    ),
    job("operator-suspended-group", f"{JOB_WORKER}/suspend", True),
    job("operator-restart-policy", f"{WORKER_POD}/restartPolicy", "Always"),
    job("operator-replica-limits", f"{JOB_WORKER}/minReplicas", 3),
    job("operator-idle-timeout", f"{JOB_WORKER}/idleTimeoutSeconds", -1),
    job("operator-idle-timeout", f"{JOB_SPEC}/autoscalerOptions/idleTimeoutSeconds", -1),
    job(
        "operator-idle-timeout",
        f"{JOB_SPEC}/autoscalerOptions/version",
        "v1",
        f"{JOB_WORKER}/idleTimeoutSeconds",
    ),
    Seed(
        "operator-priority",
        JOB,
        "RayJob",
        f"{JOB_WORKER}/priority",
        5,
        also=((f"{JOB_SPEC}/autoscalerOptions/version", "v1"),),
    ),
    job("operator-token-version", f"{JOB_SPEC}/rayVersion", "2.49.0"),
    job("operator-kubernetes-token", f"{JOB_SPEC}/authOptions/enableK8sTokenAuth", True),
    cluster("operator-managed-by", "spec/managedBy", "me"),
]
OPERATOR_JOB_SEEDS = [
    job("operator-one-cluster", "spec/clusterSelector", {"ray.io/cluster": "mine"}, "spec"),
    job("operator-suspend", "spec/suspend", True),
    job("operator-time-to-live", "spec/ttlSecondsAfterFinished", 60),
    job(
        "operator-deletion",
        "spec/shutdownAfterJobFinishes",
        True,
        "spec/deletionStrategy/deletionRules",
    ),
    job("operator-deletion", "spec/deletionStrategy/onSuccess", {"policy": "DeleteCluster"}),
    job("operator-deletion", "spec/deletionStrategy/deletionRules", [], "spec/deletionStrategy"),
    job("operator-deletion-condition", "spec/deletionStrategy/deletionRules/0/policy", "DeleteWorkers"),
    job("operator-deletion-condition", "spec/deletionStrategy/deletionRules/0/condition/ttlSeconds", -1),
    Seed(
        "operator-deletion-order",
        JOB,
        "RayJob",
        "spec/deletionStrategy/deletionRules",
        [
            {"policy": "DeleteSelf", "condition": {"jobStatus": "FAILED", "ttlSeconds": 10}},
            {"policy": "DeleteCluster", "condition": {"jobStatus": "FAILED", "ttlSeconds": 60}},
        ],
    ),
    job(
        "operator-deletion-order",
        "spec/deletionStrategy/deletionRules/1/condition/jobStatus",
        "SUCCEEDED",
        "spec/deletionStrategy/deletionRules/1",
    ),
    job(
        "operator-deletion-condition",
        "spec/deletionStrategy/deletionRules/0/condition/jobDeploymentStatus",
        "Failed",
        "spec/deletionStrategy/deletionRules/0/condition",
    ),
    job("operator-backoff", "spec/backoffLimit", -1),
    job("operator-backoff", "spec/submissionMode", "InteractiveMode", "spec/backoffLimit"),
    job("operator-sidecar", "spec/submitterConfig", {"backoffLimit": 1}),
    job("operator-sidecar", f"{HEAD_POD}/restartPolicy", "Always"),
    *(job("submitted-once", "spec/submissionMode", mode) for mode in ("HTTPMode", "K8sJobMode", ...)),
    job("job-cluster-goes", "spec/deletionStrategy", ..., "spec/deletionStrategy/deletionRules"),
    job(
        "job-cluster-goes",
        "spec/deletionStrategy/deletionRules/1/condition",
        {"jobStatus": "FAILED", "ttlSeconds": 60},
        "spec/deletionStrategy/deletionRules",
    ),
    job(
        "job-cluster-goes",
        "spec/deletionStrategy/deletionRules/1/policy",
        "DeleteNone",
        "spec/deletionStrategy/deletionRules",
    ),
    job("operator-deadlines", "spec/activeDeadlineSeconds", 0),
    job("operator-runtime-environment", "spec/runtimeEnvYAML", "- no mapping"),
]
OPERATOR_SERVICE_SEEDS = [
    service(
        "operator-head-name",
        "spec/rayClusterConfig/headGroupSpec/headService",
        {"metadata": {"name": "mine"}},
        "spec/rayClusterConfig/headGroupSpec/headService/metadata/name",
    ),
    service("operator-upgrade-type", "spec/upgradeStrategy/type", "Rolling"),
    service(
        "operator-incremental-upgrade",
        "spec/upgradeStrategy/type",
        "NewClusterWithIncrementalUpgrade",
        "spec/upgradeStrategy/clusterUpgradeOptions",
    ),
    service(
        "operator-incremental-upgrade",
        "spec/upgradeStrategy",
        {
            "type": "NewClusterWithIncrementalUpgrade",
            "clusterUpgradeOptions": {
                "gatewayClassName": "istio",
                "stepSizePercent": 60,
                "maxSurgePercent": 50,
                "intervalSeconds": 10,
            },
        },
        "spec/upgradeStrategy/clusterUpgradeOptions/stepSizePercent",
    ),
    service("operator-deletion-delay", "spec/rayClusterDeletionDelaySeconds", -1),
]
SET_SEEDS = [
    job("job-exists", "spec/entrypoint", ENTRYPOINT.replace("pipeline.py", "pipelines.py")),
    job("job-exists", "spec/entrypoint", "bash start.sh"),
    job("no-local-folder", "spec/entrypoint", ENTRYPOINT.replace("/opt/asclepius-ray/", "")),
    job("no-local-folder", "spec/runtimeEnvYAML", "working_dir: .\n"),
    job(
        "no-local-folder",
        f"{WORKER_POD}/volumes/0",
        {"name": "data", "hostPath": {"path": "/data"}},
        f"{WORKER_POD}/volumes/0/hostPath",
    ),
    Seed("run-file-seen", JOB, "ConfigMap", "metadata/name", "other", "spec/entrypoint"),
    job("run-file-seen", "spec/entrypoint", ENTRYPOINT.replace("/etc/asclepius", "/etc/other")),
    Seed(
        "run-file-current", JOB, "ConfigMap", "data/run.toml", 'name = "a"\nroot = "b"\n', "spec/entrypoint"
    ),
    command("run-file-reads", "--set training.zero_stge=1"),
    Seed(
        "claim-shared",
        "storage.yaml",
        "PersistentVolumeClaim",
        "spec/accessModes",
        ["ReadWriteOnce"],
        within=JOB,
    ),
    Seed(
        "head-budget",
        JOB,
        "PodDisruptionBudget",
        "spec/selector/matchLabels",
        {"app.kubernetes.io/name": "other"},
        f"{JOB_HEAD}/template/metadata/labels",
    ),
    Seed(
        "head-budget",
        JOB,
        "PodDisruptionBudget",
        "spec/selector/matchLabels",
        {"app.kubernetes.io/part-of": "asclepius-ray"},
        f"{JOB_HEAD}/template/metadata/labels",
    ),
    serve("serve-config", "proxy_location", "proxy_locations", "/proxy_locations"),
    serve("serve-config", "route_prefix", "route_prefixes", "/applications/0/route_prefixes"),
    serve("serve-config", "use_gpu", "use_gpus", "/applications/0/args/serving"),
    serve("serve-config", ":build_application", ":build", "/applications/0/import_path"),
    service("serve-config", "spec/serveConfigV2", "not: [yaml"),
    serve("model-mounted", "/data/llama3-8b/model", "/models/llama3-8b", "/applications/0/args/model"),
    cluster("ray-version", "spec/rayVersion", "2.59.0"),
    Seed(
        "no-public-service",
        CLUSTER,
        "PodDisruptionBudget",
        "spec",
        {"type": "LoadBalancer", "ports": [{"port": 8265}]},
        "spec/ports/0",
        also=(("kind", "Service"),),
    ),
]
RUN_SEEDS = [
    command("training-within-group", "--set training.workers=[4,16]", f"{JOB_WORKER}/maxReplicas"),
    aws("training-within-group", f"{TYPES}/training/resources/GPU", 4, f"{TYPES}/training/max_workers"),
    command(
        "synthesis-within-group", "--set synthesis.workers=641", f"{JOB_SPEC}/workerGroupSpecs/0/maxReplicas"
    ),
    service(
        "serving-within-group",
        "spec/rayClusterConfig/workerGroupSpecs/0/maxReplicas",
        0,
    ),
    service(
        "serving-within-group",
        "spec/serveConfigV2",
        SERVE_CONFIG.replace("use_gpu: true", "use_gpu: true\n        replicas: 3"),
        "spec/rayClusterConfig/workerGroupSpecs/0/maxReplicas",
    ),
    job(
        "keys-present",
        f"{WORKER_POD}/containers/0/env/3/name",
        "OTHER_API_KEY",
        f"{WORKER_POD}/containers/0/env",
    ),
    gcp("keys-present", "head_start_ray_commands/1", "ray start --head", "head_start_ray_commands"),
    command(
        "teacher-within-group",
        "--set teacher.model_path=s3://bucket/teacher --set serving.replicas=16",
        f"{JOB_WORKER}/maxReplicas",
    ),
    command("shared-storage", "--set root=/scratch/run"),
    command("gpu-memory", "--set training.zero_stage=1", f"{JOB_WORKER}/maxReplicas"),
    serve("service-serves-run", "/data/llama3-8b/model", "/data/other/model", "/applications/0/args/model"),
]
SEEDS = [
    *SCHEMA_SEEDS,
    *LAUNCHER_SEEDS,
    *OPERATOR_CLUSTER_SEEDS,
    *OPERATOR_JOB_SEEDS,
    *OPERATOR_SERVICE_SEEDS,
    *SET_SEEDS,
    *RUN_SEEDS,
]
