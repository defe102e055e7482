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
    path: str
    value: Any
    """`...` takes the place away."""
    found_at: str = ""
    """Where it differs from `path`."""
    also: tuple[tuple[str, Any], ...] = ()
    """What else must be set for the mistake to be one."""
    within: str = ""
    """The file that it is applied with, where that is another."""


def _job(rule: str, path: str, value: Any, found_at: str = "") -> Seed:
    return Seed(rule, JOB, "RayJob", path, value, found_at)


def _service(rule: str, path: str, value: Any, found_at: str = "") -> Seed:
    return Seed(rule, SERVICE, "RayService", path, value, found_at)


def _cluster(rule: str, path: str, value: Any, found_at: str = "") -> Seed:
    return Seed(rule, CLUSTER, "RayCluster", path, value, found_at)


def _aws(rule: str, path: str, value: Any, found_at: str = "") -> Seed:
    return Seed(rule, "aws.yaml", "launcher", path, value, found_at)


def _gcp(rule: str, path: str, value: Any, found_at: str = "") -> Seed:
    return Seed(rule, "gcp.yaml", "launcher", path, value, found_at)


def _serve(rule: str, old: str, new: str, found_at: str) -> Seed:
    assert old in SERVE_CONFIG
    path = "spec/serveConfigV2"
    return _service(rule, path, SERVE_CONFIG.replace(old, new), f"{path}{found_at}")


def _command(rule: str, more: str, found_at: str = "") -> Seed:
    return _job(rule, "spec/entrypoint", f"{ENTRYPOINT} {more}", found_at)


TYPES = "available_node_types"
SCHEMA_SEEDS = [
    _aws("launcher-schema", "max_worker", 3),
    _aws("launcher-schema", f"{TYPES}/training/min_worker", 1),
    _aws("launcher-schema", f"{TYPES}/training/resources/GPU", 0.5),
    _aws("launcher-schema", "provider", ...),
    _aws("launcher-schema", f"{TYPES}/training/min_workers", 9, TYPES),
    _gcp("launcher-schema", "head_node_type", "main", TYPES),
    _job("kuberay-schema", "spec/entryPoint", "python x.py"),
    _job("kuberay-schema", "spec/submissionMode", 3),
    _job("kuberay-schema", "spec/deletionStrategy/deletionRules/0/policy", "DeleteAll"),
    _job("kuberay-schema", JOB_HEAD, ...),
    _job("kuberay-schema", f"{JOB_SPEC}/authOptions/mode", "Token"),
    _job("kuberay-schema", f"{WORKER_POD}/containers/0/env/0/val", "60"),
    _job("kuberay-schema", f"{JOB_HEAD}/rayStartParams/num-cpus", 0),
    _service("kuberay-schema", "spec/serveConfig", ""),
    _cluster("kuberay-schema", "spec/workerGroupSpecs/0/maxReplica", 3),
    _job("known-document", "apiVersion", ..., "kind"),
]
LAUNCHER_SEEDS = [
    _aws("launcher-node-config", f"{TYPES}/training/node_config/InstanceTyp", "p5.48xlarge"),
    _aws("launcher-node-config", f"{TYPES}/training/node_config/IamInstanceProfile", ...),
    _gcp("launcher-node-config", f"{TYPES}/training/node_config/machineTyp", "a3"),
    _gcp("launcher-node-config", f"{TYPES}/training/node_config/scheduling", [{"preemptible": True}]),
    _aws("launcher-head-stays", f"{TYPES}/head/node_config/InstanceMarketOptions", {"MarketType": "spot"}),
    _gcp("launcher-head-stays", f"{TYPES}/head/node_config/scheduling", [{"preemptible": True}]),
    _aws("launcher-head-without-work", f"{TYPES}/head/resources/CPU", 8),
    _aws("launcher-worker-limit", f"{TYPES}/training/max_workers", 9),
    _aws("launcher-token", "head_start_ray_commands/1", "ray start --head", "head_start_ray_commands"),
    _gcp("launcher-token", "file_mounts", {}),
    _aws(
        "launcher-dashboard",
        "head_start_ray_commands/1",
        "ray start --head --dashboard-host=0.0.0.0",
        "head_start_ray_commands",
    ),
    _aws(
        "launcher-dashboard",
        "provider/security_group",
        {"IpPermissions": [{"FromPort": 8265, "ToPort": 8265, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]},
        "provider/security_group/IpPermissions/0",
    ),
    _aws("launcher-local-folder", "file_mounts/code", "asclepius_ray"),
    _gcp(
        "launcher-drain",
        "worker_start_ray_commands/1",
        "export RAY_AUTH_MODE=token RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=60; ray start",
        "worker_start_ray_commands",
    ),
    _aws("launcher-drain", "worker_start_ray_commands/1", "ray start", "worker_start_ray_commands"),
    _aws("launcher-drain", "docker/run_options", []),
    _aws("launcher-image", "docker/image", "rayproject/ray:latest"),
]
OPERATOR_CLUSTER_SEEDS = [
    _job("operator-name", "metadata/name", "asclepius_pipeline"),
    _job("operator-name", "metadata/name", "a" * 48),
    _job("operator-container", f"{WORKER_POD}/containers", []),
    _job(
        "operator-resources-once",
        f"{JOB_HEAD}/resources",
        {"CPU": "0"},
        f"{JOB_HEAD}/rayStartParams/num-cpus",
    ),
    _job("operator-start-labels", f"{JOB_WORKER}/rayStartParams/labels", "a=b"),
    _job("operator-label-syntax", f"{JOB_WORKER}/labels", {"zone": "eu west"}),
    _job(
        "operator-redis",
        f"{HEAD_POD}/containers/0/env/6",
        {"name": "RAY_REDIS_ADDRESS", "value": "redis:6379"},
        f"{HEAD_POD}/containers/0/env",
    ),
    _job("operator-redis", f"{JOB_HEAD}/rayStartParams/redis-username", "ray"),
    _job(
        "operator-autoscaler-variable",
        f"{HEAD_POD}/containers/0/env/0/name",
        "RAY_enable_autoscaler_v2",
        f"{HEAD_POD}/containers/0/env",
    ),
    _job("operator-suspended-group", f"{JOB_WORKER}/suspend", True),
    _job("operator-restart-policy", f"{WORKER_POD}/restartPolicy", "Always"),
    _job("operator-replica-limits", f"{JOB_WORKER}/minReplicas", 3),
    _job("operator-idle-timeout", f"{JOB_WORKER}/idleTimeoutSeconds", -1),
    _job("operator-idle-timeout", f"{JOB_SPEC}/autoscalerOptions/idleTimeoutSeconds", -1),
    Seed(
        "operator-priority",
        JOB,
        "RayJob",
        f"{JOB_WORKER}/priority",
        5,
        also=((f"{JOB_SPEC}/autoscalerOptions/version", "v1"),),
    ),
    _job("operator-token-version", f"{JOB_SPEC}/rayVersion", "2.49.0"),
    _job("operator-kubernetes-token", f"{JOB_SPEC}/authOptions/enableK8sTokenAuth", True),
    _cluster("operator-managed-by", "spec/managedBy", "me"),
]
OPERATOR_JOB_SEEDS = [
    _job("operator-one-cluster", "spec/clusterSelector", {"ray.io/cluster": "mine"}, "spec"),
    _job("operator-suspend", "spec/suspend", True),
    _job("operator-time-to-live", "spec/ttlSecondsAfterFinished", 60),
    _job(
        "operator-deletion",
        "spec/shutdownAfterJobFinishes",
        True,
        "spec/deletionStrategy/deletionRules",
    ),
    _job("operator-deletion", "spec/deletionStrategy/onSuccess", {"policy": "DeleteCluster"}),
    _job("operator-deletion", "spec/deletionStrategy/deletionRules", [], "spec/deletionStrategy"),
    _job("operator-deletion-condition", "spec/deletionStrategy/deletionRules/0/policy", "DeleteWorkers"),
    _job("operator-deletion-condition", "spec/deletionStrategy/deletionRules/0/condition/ttlSeconds", -1),
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
    _job(
        "operator-deletion-order",
        "spec/deletionStrategy/deletionRules/1/condition/jobStatus",
        "SUCCEEDED",
        "spec/deletionStrategy/deletionRules/1",
    ),
    _job(
        "operator-deletion-condition",
        "spec/deletionStrategy/deletionRules/0/condition/jobDeploymentStatus",
        "Failed",
        "spec/deletionStrategy/deletionRules/0/condition",
    ),
    _job("operator-backoff", "spec/backoffLimit", -1),
    _job("operator-backoff", "spec/submissionMode", "InteractiveMode", "spec/backoffLimit"),
    _job("operator-sidecar", "spec/submitterConfig", {"backoffLimit": 1}),
    _job("operator-sidecar", f"{HEAD_POD}/restartPolicy", "Always"),
    _job("operator-deadlines", "spec/activeDeadlineSeconds", 0),
    _job("operator-runtime-environment", "spec/runtimeEnvYAML", "- no mapping"),
]
OPERATOR_SERVICE_SEEDS = [
    _service(
        "operator-head-name",
        "spec/rayClusterConfig/headGroupSpec/headService",
        {"metadata": {"name": "mine"}},
        "spec/rayClusterConfig/headGroupSpec/headService/metadata/name",
    ),
    _service("operator-upgrade-type", "spec/upgradeStrategy/type", "Rolling"),
    _service(
        "operator-incremental-upgrade",
        "spec/upgradeStrategy/type",
        "NewClusterWithIncrementalUpgrade",
        "spec/upgradeStrategy/clusterUpgradeOptions",
    ),
    _service(
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
    _service("operator-deletion-delay", "spec/rayClusterDeletionDelaySeconds", -1),
]
POD_SEEDS = [
    _job("authentication-on", f"{JOB_SPEC}/authOptions", ..., f"{JOB_SPEC}/authOptions/mode"),
    _service("authentication-on", "spec/rayClusterConfig/authOptions/mode", "disabled"),
    _job("no-public-dashboard", f"{JOB_HEAD}/serviceType", "LoadBalancer"),
    _cluster("no-public-dashboard", "spec/headGroupSpec/enableIngress", True),
    _job("no-public-dashboard", f"{WORKER_POD}/hostNetwork", True),
    _job("non-root", f"{WORKER_POD}/securityContext/runAsNonRoot", ...),
    _job(
        "non-root",
        f"{WORKER_POD}/containers/0/securityContext/runAsUser",
        0,
    ),
    _job(
        "no-rights",
        f"{WORKER_POD}/containers/0/securityContext",
        {},
        f"{WORKER_POD}/containers/0/securityContext/allowPrivilegeEscalation",
    ),
    _job("no-rights", f"{HEAD_POD}/containers/0/securityContext/privileged", True),
    _job("grace-over-drain", f"{WORKER_POD}/terminationGracePeriodSeconds", 60),
    _job("grace-over-drain", f"{HEAD_POD}/terminationGracePeriodSeconds", ...),
    _job(
        "grace-over-drain",
        f"{WORKER_POD}/containers/0/env/0/value",
        "100",
        f"{WORKER_POD}/terminationGracePeriodSeconds",
    ),
    _job(
        "volumes-mounted",
        f"{WORKER_POD}/containers/0/volumeMounts/0/name",
        "other",
        f"{WORKER_POD}/containers/0/volumeMounts",
    ),
    _job("image-pinned", f"{WORKER_POD}/containers/0/image", "registry.example.com:5000/asclepius-ray"),
    _job("image-pinned", f"{WORKER_POD}/containers/0/image", "rayproject/ray:2.59.0"),
    _job(
        "head-stays",
        f"{JOB_HEAD}/template/metadata/annotations",
        ...,
    ),
    _job("head-stays", f"{HEAD_POD}/nodeSelector", {"cloud.google.com/gke-spot": "true"}),
    _job("head-without-work", f"{JOB_HEAD}/rayStartParams/num-cpus", "4"),
    _job("requests-are-limits", f"{WORKER_POD}/containers/0/resources/limits/memory", ...),
    _job("requests-are-limits", f"{WORKER_POD}/containers/0/resources/requests/cpu", "1"),
]
SECRET_SEEDS = [
    _job(
        "secrets-by-name",
        f"{WORKER_POD}/containers/0/env/3",
        {"name": "OPENAI_API_KEY", "value": "a-key"},
        f"{WORKER_POD}/containers/0/env/3/value",
    ),
    _command("secrets-by-name", "--set root=s3://user:password@bucket/x"),
    _aws("secrets-by-name", "head_start_ray_commands/0", "export OPENAI_API_KEY=a-key"),
    Seed("secrets-by-name", JOB, "ConfigMap", "kind", "Secret", "data"),
    Seed("secrets-by-name", JOB, "ConfigMap", "data/run.toml", "key = 'sk-0123456789abcdef01'"),
]
SET_SEEDS = [
    _job("job-exists", "spec/entrypoint", ENTRYPOINT.replace("pipeline.py", "pipelines.py")),
    _job("job-exists", "spec/entrypoint", "bash start.sh"),
    _job("no-local-folder", "spec/entrypoint", ENTRYPOINT.replace("/opt/asclepius-ray/", "")),
    _job("no-local-folder", "spec/runtimeEnvYAML", "working_dir: .\n"),
    _job(
        "no-local-folder",
        f"{WORKER_POD}/volumes/0",
        {"name": "data", "hostPath": {"path": "/data"}},
        f"{WORKER_POD}/volumes/0/hostPath",
    ),
    Seed("run-file-mounted", JOB, "ConfigMap", "metadata/name", "other", "spec/entrypoint"),
    _job("run-file-mounted", "spec/entrypoint", ENTRYPOINT.replace("/etc/asclepius", "/etc/other")),
    Seed(
        "run-file-current", JOB, "ConfigMap", "data/run.toml", 'name = "a"\nroot = "b"\n', "spec/entrypoint"
    ),
    _command("run-file-reads", "--set training.zero_stge=1"),
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
        {"app.kubernetes.io/name": "asclepius-ray"},
        f"{JOB_HEAD}/template/metadata/labels",
    ),
    _serve("serve-config", "proxy_location", "proxy_locations", "/proxy_locations"),
    _serve("serve-config", "route_prefix", "route_prefixes", "/applications/0/route_prefixes"),
    _serve("serve-config", "use_gpu", "use_gpus", "/applications/0/args/serving"),
    _serve("serve-config", ":build_application", ":build", "/applications/0/import_path"),
    _service("serve-config", "spec/serveConfigV2", "not: [yaml"),
    _serve("model-mounted", "/data/llama3-8b/model", "/models/llama3-8b", "/applications/0/args/model"),
    _cluster("ray-version", "spec/rayVersion", "2.59.0"),
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
    _command("training-within-group", "--set training.workers=[4,16]", f"{JOB_WORKER}/maxReplicas"),
    _aws("training-within-group", f"{TYPES}/training/resources/GPU", 4, f"{TYPES}/training/max_workers"),
    _command(
        "synthesis-within-group", "--set synthesis.workers=64", f"{JOB_SPEC}/workerGroupSpecs/0/maxReplicas"
    ),
    _service(
        "serving-within-group",
        "spec/rayClusterConfig/workerGroupSpecs/0/maxReplicas",
        0,
    ),
    _service(
        "serving-within-group",
        "spec/serveConfigV2",
        SERVE_CONFIG.replace("use_gpu: true", "use_gpu: true\n        replicas: 3"),
        "spec/rayClusterConfig/workerGroupSpecs/0/maxReplicas",
    ),
    _job(
        "keys-present",
        f"{WORKER_POD}/containers/0/env/3/name",
        "OTHER_API_KEY",
        f"{WORKER_POD}/containers/0/env",
    ),
    _gcp("keys-present", "head_start_ray_commands/1", "ray start --head", "head_start_ray_commands"),
    _command(
        "teacher-within-group",
        "--set teacher.model_path=s3://bucket/teacher --set serving.replicas=16",
        f"{JOB_WORKER}/maxReplicas",
    ),
    _command("shared-storage", "--set root=/scratch/run"),
    _command("gpu-memory", "--set training.zero_stage=1", f"{JOB_WORKER}/maxReplicas"),
    _serve("service-serves-run", "/data/llama3-8b/model", "/data/other/model", "/applications/0/args/model"),
]
SEEDS = [
    *SCHEMA_SEEDS,
    *LAUNCHER_SEEDS,
    *OPERATOR_CLUSTER_SEEDS,
    *OPERATOR_JOB_SEEDS,
    *OPERATOR_SERVICE_SEEDS,
    *POD_SEEDS,
    *SECRET_SEEDS,
    *SET_SEEDS,
    *RUN_SEEDS,
]
