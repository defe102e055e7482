"""Mistakes in pods: rights, time to end, images; and keys that are written out."""

from seeds import (
    HEAD_POD,
    JOB,
    JOB_HEAD,
    JOB_SPEC,
    WORKER_POD,
    Seed,
    aws,
    cluster,
    command,
    job,
    service,
)

AUTOSCALER = "spec/autoscalerOptions/securityContext"
SECCOMP = f"{WORKER_POD}/securityContext/seccompProfile"
REQUESTS = f"{WORKER_POD}/containers/0/resources/requests"
HOOK = f"{WORKER_POD}/containers/0/lifecycle/preStop"
CLUSTER_HOOK = "spec/workerGroupSpecs/0/template/spec/containers/0/lifecycle/preStop"


def _run_text(text: str) -> Seed:
    return Seed("secrets-by-name", JOB, "ConfigMap", "data/run.toml", text)


POD_SEEDS = [
    job("authentication-on", f"{JOB_SPEC}/authOptions", ..., f"{JOB_SPEC}/authOptions/mode"),
    service("authentication-on", "spec/rayClusterConfig/authOptions/mode", "disabled"),
    job("no-public-dashboard", f"{JOB_HEAD}/serviceType", "LoadBalancer"),
    cluster("no-public-dashboard", "spec/headGroupSpec/enableIngress", True),
    job("no-public-dashboard", f"{WORKER_POD}/hostNetwork", True),
    job(
        "no-public-dashboard",
        f"{HEAD_POD}/containers/0/ports",
        [{"containerPort": 8265, "hostPort": 8265}],
        f"{HEAD_POD}/containers/0/ports/0/hostPort",
    ),
    job("non-root", f"{WORKER_POD}/securityContext/runAsNonRoot", ...),
    job(
        "non-root",
        f"{WORKER_POD}/containers/0/securityContext/runAsUser",
        0,
    ),
    job(
        "no-rights",
        f"{WORKER_POD}/containers/0/securityContext",
        {},
        f"{WORKER_POD}/containers/0/securityContext/allowPrivilegeEscalation",
    ),
    job("no-rights", f"{HEAD_POD}/containers/0/securityContext/privileged", True),
    job("non-root", f"{WORKER_POD}/containers/0/securityContext/runAsNonRoot", False),
    cluster("non-root", f"{AUTOSCALER}/runAsUser", 0),
    cluster("no-rights", f"{AUTOSCALER}/privileged", True),
    cluster("no-rights", f"{AUTOSCALER}/capabilities", ..., f"{AUTOSCALER}/capabilities/drop"),
    job("no-rights", f"{WORKER_POD}/containers/0/securityContext/capabilities/add", ["SYS_ADMIN"]),
    job("no-rights", f"{WORKER_POD}/hostPID", True),
    job("no-rights", f"{HEAD_POD}/hostIPC", True),
    job("no-rights", f"{HEAD_POD}/securityContext/seccompProfile", ...),
    job("no-rights", f"{WORKER_POD}/securityContext/seccompProfile/type", "Unconfined", SECCOMP),
    job("no-rights", f"{WORKER_POD}/containers/0/securityContext/seccompProfile", {"type": "Unconfined"}),
    job("drain-hook", HOOK, ...),
    job("drain-hook", f"{HOOK}/exec/command", ["sleep", "60"], HOOK),
    cluster("drain-hook", "spec/workerGroupSpecs/0/template/spec/containers/0/lifecycle", {}, CLUSTER_HOOK),
    job("grace-over-drain", f"{WORKER_POD}/terminationGracePeriodSeconds", 60),
    job("grace-over-drain", f"{HEAD_POD}/terminationGracePeriodSeconds", ...),
    job(
        "grace-over-drain",
        f"{HOOK}/exec/command/4",
        "120",
        f"{WORKER_POD}/terminationGracePeriodSeconds",
    ),
    job(
        "grace-over-drain",
        f"{WORKER_POD}/containers/0/env/0/value",
        "100",
        f"{WORKER_POD}/terminationGracePeriodSeconds",
    ),
    job(
        "volumes-mounted",
        f"{WORKER_POD}/containers/0/volumeMounts/0/name",
        "other",
        f"{WORKER_POD}/containers/0/volumeMounts",
    ),
    job("image-pinned", f"{WORKER_POD}/containers/0/image", "registry.example.com:5000/asclepius-ray"),
    job("image-pinned", f"{WORKER_POD}/containers/0/image", "rayproject/ray:2.59.0"),
    job(
        "head-stays",
        f"{JOB_HEAD}/template/metadata/annotations",
        ...,
    ),
    job("head-stays", f"{HEAD_POD}/nodeSelector", {"cloud.google.com/gke-spot": "true"}),
    job("head-stays", f"{HEAD_POD}/nodeSelector", {"karpenter.sh/capacity-type": "spot"}),
    job("head-without-work", f"{JOB_HEAD}/rayStartParams/num-cpus", "4"),
    job("requests-are-limits", f"{WORKER_POD}/containers/0/resources/limits/memory", ...),
    job("requests-are-limits", f"{WORKER_POD}/containers/0/resources/requests/cpu", "1"),
    job("requests-are-limits", f"{WORKER_POD}/containers/0/resources/requests/memory", "512G"),
    job("requests-are-limits", REQUESTS, {"nvidia.com/gpu": "4"}),
    Seed(
        "requests-are-limits",
        JOB,
        "RayJob",
        REQUESTS,
        {"nvidia.com/gpu": "8"},
        also=((f"{WORKER_POD}/containers/0/resources/limits", {"cpu": "32", "memory": "512Gi"}),),
    ),
]
TOKEN = {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}
ACCOUNT_SEEDS = [
    job("account-token", f"{WORKER_POD}/automountServiceAccountToken", True),
    cluster("account-token", "spec/headGroupSpec/template/spec/automountServiceAccountToken", None),
    Seed(
        "account-token",
        JOB,
        "RayJob",
        f"{WORKER_POD}/containers/0/volumeMounts/2",
        {"name": "token", "mountPath": "/token"},
        also=((f"{WORKER_POD}/volumes/2", TOKEN),),
    ),
    Seed(
        "autoscaler-token",
        JOB,
        "RayJob",
        f"{JOB_SPEC}/autoscalerOptions/volumeMounts",
        [],
        also=((f"{HEAD_POD}/automountServiceAccountToken", False),),
    ),
]
SECRET_SEEDS = [
    job(
        "secrets-by-name",
        f"{WORKER_POD}/containers/0/env/3",
        {"name": "OPENAI_API_KEY", "value": "a-key"},
        f"{WORKER_POD}/containers/0/env/3/value",
    ),
    command("secrets-by-name", "--set root=s3://user:password@bucket/x"),
    aws("secrets-by-name", "head_start_ray_commands/0", "export OPENAI_API_KEY=a-key"),
    Seed("secrets-by-name", JOB, "ConfigMap", "kind", "Secret", "data"),
    _run_text("key = 'sk-0123456789abcdef01'"),
    _run_text('[teacher.headers]\nAuthorization = "a-key"\n'),
    _run_text('judge = { headers = { "x-api-key" = "a-key" } }\n'),
    _run_text('[teacher]\nbase_url = "https://host/v1?api-key=a-key"\n'),
    _run_text('[teacher]\nbase_url = "https://host/v1?version=2&sig=a-key"\n'),
    _run_text('[teacher.extra_body]\nauthorization = "Bearer 0123456789abcdef"\n'),
    command("secrets-by-name", "--set teacher.headers.Authorization=a-key"),
]
