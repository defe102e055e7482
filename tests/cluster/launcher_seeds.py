"""Mistakes in the files of `ray up`, of machines, images and commands; and keys written inside of texts."""

from committed import document
from seeds import JOB, SERVE_CONFIG, TYPES, Seed, aws, command, gcp, job, service

TRAINING = f"{TYPES}/training"
NODE = f"{TRAINING}/node_config"
SETUP = "worker_setup_commands"
HEAD_START = "head_start_ray_commands"
TOKEN_ALONE = {"/home/ray/.ray/auth_token": "~/.ray/auth_token"}


def _watch_of(cloud: str) -> str:
    (command,) = document(f"{cloud}.yaml", "launcher")[SETUP]
    return str(command)


def _without_autoscaler(cloud: str) -> str:
    command = document(f"{cloud}.yaml", "launcher")[HEAD_START][1]
    return str(command.replace("--autoscaling-config=~/ray_bootstrap_config.yaml ", ""))


LAUNCHER_PARTS_SEEDS = [
    aws("launcher-drain-watch", SETUP, []),
    gcp("launcher-drain-watch", SETUP, []),
    aws("launcher-drain-watch", f"{TRAINING}/{SETUP}", []),
    gcp("launcher-drain-watch", f"{TRAINING}/{SETUP}", ["true"]),
    Seed(
        "launcher-drain-watch",
        "gcp.yaml",
        "launcher",
        SETUP,
        [],
        also=((f"{NODE}/scheduling", {"provisioningModel": "SPOT", "onHostMaintenance": "TERMINATE"}),),
    ),
    aws("launcher-drain-watch", f"{SETUP}/0", _watch_of("gcp")),
    gcp("launcher-drain-watch", f"{SETUP}/0", _watch_of("aws")),
    aws("launcher-autoscaler", f"{HEAD_START}/1", _without_autoscaler("aws"), HEAD_START),
    gcp("launcher-autoscaler", f"{HEAD_START}/1", _without_autoscaler("gcp"), HEAD_START),
    aws("launcher-keys-file", "file_mounts", TOKEN_ALONE),
    gcp("launcher-keys-file", "file_mounts", {}),
    aws("launcher-image", "docker/image", ...),
    aws("launcher-image", "docker/head_image", "registry.example.com/asclepius-ray"),
    aws("launcher-image", "docker/worker_image", "registry.example.com/asclepius-ray:latest"),
    gcp("launcher-image", f"{TRAINING}/docker", {"worker_image": "a/b"}, f"{TRAINING}/docker/worker_image"),
    aws("launcher-node-config", f"{NODE}/InstanceMarketOptions/MarketType", "Spot"),
    aws("launcher-node-config", f"{NODE}/DryRun", True),
    aws("launcher-node-config", f"{NODE}/userData", "#!/bin/sh"),
    aws("launcher-head-stays", f"{TYPES}/head/node_config/InstanceMarketOptions", {"MarketType": "Spot"}),
    gcp("launcher-node-config", f"{NODE}/serviceAccounts", ...),
    gcp("launcher-node-config", f"{NODE}/serviceAccounts", []),
    gcp("launcher-head-stays", f"{TYPES}/head/node_config/scheduling", {"preemptible": True}),
]


def _run_text(text: str) -> Seed:
    return Seed("secrets-by-name", JOB, "ConfigMap", "data/run.toml", text)


WRITTEN_KEY_SEEDS = [
    job("secrets-by-name", "spec/runtimeEnvYAML", "env_vars:\n  OPENAI_API_KEY: 0123456789abcdef\n"),
    job("secrets-by-name", "spec/runtimeEnvYAML", "env_vars: {teacher_password: abc}"),
    _run_text('[teacher.extra_body]\napi_key = "0123456789abcdef"\n'),
    _run_text('[evaluation.judges.a.extra_body]\nauth = [{ accessToken = "0123456789abcdef" }]\n'),
    _run_text('[serving]\ntls_key = "-----BEGIN PRIVATE KEY-----"\n'),
    Seed("secrets-by-name", JOB, "ConfigMap", "data/OPENAI_API_KEY", "0123456789abcdef"),
    command("secrets-by-name", "--set teacher.extra_body.api_key=0123456789abcdef", "spec/entrypoint"),
    command(
        "secrets-by-name", "--set 'teacher.extra_body={api_key=\"0123456789abcdef\"}'", "spec/entrypoint"
    ),
    service(
        "secrets-by-name",
        "spec/serveConfigV2",
        SERVE_CONFIG.replace("    args:", "    runtime_env: {env_vars: {CLIENT_SECRET: abc}}\n    args:"),
    ),
]
