"""A profile → the file of `ray up` for AWS or Google Cloud. Pure.

The code comes with the image; from here travel the token and the keys alone, each a file outside the project.
"""

from asclepius_ray.errors import ConfigError
from asclepius_ray.launch.cluster.profile import (
    Machine,
    Profile,
    WorkerGroup,
    idle_seconds,
)
from asclepius_ray.launch.cluster.yaml_text import Json
from asclepius_ray.launch.stopping import JOB_STOP_SECONDS

OPEN_FILES = 65536
KEYS_FILE = "/home/ray/keys.env"
TOKEN_FILE = "/home/ray/.ray/auth_token"
HEAD = "head"
_COMPUTE_SCOPE = "https://www.googleapis.com/auth/cloud-platform"


def render_launcher(profile: Profile, cloud: str) -> list[Json]:
    """The launcher's file: a small head that stays, and workers that come with the work."""
    if profile.cloud.kind != cloud:
        raise ConfigError(
            f'the profile is for {profile.cloud.kind}: --to {cloud} needs cloud.kind = "{cloud}"; '
            "cluster/profiles/ holds one for each"
        )
    launcher: Json = {
        "cluster_name": profile.name,
        "provider": _provider(profile),
        "auth": {"ssh_user": profile.cloud.ssh_user},
        "docker": {
            "image": profile.image.name,
            "container_name": profile.name,
            "pull_before_run": True,
            "run_options": [
                f"--ulimit nofile={OPEN_FILES}:{OPEN_FILES}",
                f"--stop-timeout={profile.shutdown.grace_seconds}",
            ],
        },
        "max_workers": sum(group.most for group in profile.workers.values()),
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": _idle_minutes(profile),
        "head_node_type": HEAD,
        "available_node_types": _node_types(profile),
        "file_mounts": {TOKEN_FILE: profile.authentication.token_file, KEYS_FILE: profile.secrets.file},
        # The image holds the stack, and with it what starts the other machines.
        "setup_commands": [],
        "head_setup_commands": [],
        "worker_setup_commands": [_drain_watch(profile)],
        "head_start_ray_commands": ["ray stop", _start_command(profile, is_head=True)],
        "worker_start_ray_commands": ["ray stop", _start_command(profile, is_head=False)],
    }
    return [launcher]


def _idle_minutes(profile: Profile) -> float:
    """One time for all types: the autoscaler that Ray runs on virtual machines knows none of a type's own."""
    longest = max(idle_seconds(role, group) for role, group in profile.workers.items())
    return round(longest / 60, 2)


def _drain_watch(profile: Profile) -> str:
    """Watches for the notices to spot machines. Once its Ray has ended the watch ends too, and begins anew,
    since the autoscaler may start Ray on the machine again."""
    return (
        f'RAY_AUTH_MODE=token nohup bash -c "while sleep 1; do asclepius drain-watch --provider '
        f'{profile.cloud.kind}; done" >> /home/ray/drain-watch.log 2>&1 < /dev/null &'
    )


def _provider(profile: Profile) -> Json:
    cloud = profile.cloud
    if cloud.kind == "gcp":
        return {
            "type": "gcp",
            "region": cloud.region,
            "availability_zone": cloud.zone,
            "project_id": cloud.project,
        }
    # Ended, not stopped: a stopped machine's disk goes on costing.
    return {"type": "aws", "region": cloud.region, "cache_stopped_nodes": False}


def _node_types(profile: Profile) -> Json:
    # No task runs on the head: it must outlive every task.
    types: Json = {
        HEAD: {
            "max_workers": 0,
            "resources": {"CPU": 0, "GPU": 0},
            "node_config": _node(profile, profile.head, spot=False),
        }
    }
    for role, group in profile.workers.items():
        types[role] = {
            "min_workers": group.fewest,
            "max_workers": group.most,
            "resources": {"CPU": group.cpus} | ({"GPU": group.gpus} if group.gpus else {}),
            "node_config": _node(profile, group, spot=group.spot),
        }
    return types


def _node(profile: Profile, machine: Machine, spot: bool) -> Json:
    return (_google_node if profile.cloud.kind == "gcp" else _aws_node)(profile, machine, spot)


def _aws_node(profile: Profile, machine: Machine, spot: bool) -> Json:
    cloud, kms_key = profile.cloud, _kms_key(profile)
    disk: Json = {"VolumeSize": machine.disk_gib, "VolumeType": "gp3", "Encrypted": True}
    if kms_key:
        disk["KmsKeyId"] = kms_key
    node: Json = {"InstanceType": machine.machine_type}
    if cloud.machine_image:
        node["ImageId"] = cloud.machine_image
    # The role lets the nodes reach the bucket, and the head start and end the others.
    node["IamInstanceProfile"] = {"Name": cloud.role}
    node["BlockDeviceMappings"] = [{"DeviceName": "/dev/sda1", "Ebs": disk}]
    # A container's calls for the role's keys come from one hop farther away.
    node["MetadataOptions"] = {"HttpTokens": "required", "HttpPutResponseHopLimit": 2}
    if spot:
        node["InstanceMarketOptions"] = {"MarketType": "spot"}
    return node


def _google_node(profile: Profile, machine: Machine, spot: bool) -> Json:
    cloud, kms_key = profile.cloud, _kms_key(profile)
    disk: Json = {
        "boot": True,
        "autoDelete": True,
        "type": "PERSISTENT",
        "initializeParams": {"diskSizeGb": machine.disk_gib, "sourceImage": cloud.machine_image},
    }
    if kms_key:
        disk["diskEncryptionKey"] = {"kmsKeyName": kms_key}
    scheduling: Json = {"preemptible": True} if spot else {}
    if isinstance(machine, WorkerGroup) and machine.gpus:
        # A machine with GPUs cannot be moved while it runs.
        scheduling["onHostMaintenance"] = "TERMINATE"
    node: Json = {
        "machineType": machine.machine_type,
        "disks": [disk],
        "serviceAccounts": [{"email": cloud.role, "scopes": [_COMPUTE_SCOPE]}],
    }
    return node | ({"scheduling": [scheduling]} if scheduling else {})


def _kms_key(profile: Profile) -> str:
    return profile.storage.bucket.kms_key if profile.storage.bucket else ""


def _start_command(profile: Profile, is_head: bool) -> str:
    drain = profile.shutdown.drain_seconds
    variables = (
        f"RAY_AUTH_MODE=token RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S={drain} "
        f"RAY_JOB_STOP_WAIT_TIME_S={JOB_STOP_SECONDS}"
    )
    role = (
        # Nobody reaches the dashboard but through ssh: `ray dashboard` forwards its port.
        "--head --port=6379 --dashboard-host=127.0.0.1 --autoscaling-config=~/ray_bootstrap_config.yaml"
        if is_head
        else "--address=$RAY_HEAD_IP:6379"
    )
    # A key that is missing ends the start with its name.
    asked = "".join(f": ${{{name}:?}}; " for name in profile.secrets.required)
    return (
        f"set -a; . {KEYS_FILE}; set +a; {asked}ulimit -n {OPEN_FILES}; export {variables}; "
        f"ray start {role} --object-manager-port=8076"
    )
