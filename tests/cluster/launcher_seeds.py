"""Mistakes in the files of `ray up`: machines, images, and what the nodes run beside Ray."""

from committed import document
from seeds import TYPES, Seed, aws, gcp

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
