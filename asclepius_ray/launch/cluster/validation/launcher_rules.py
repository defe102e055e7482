"""What `ray up` refuses, and what it takes although the cluster would then not do."""

import copy
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import jsonschema

from asclepius_ray.launch.cluster.launcher import KEYS_FILE
from asclepius_ray.launch.cluster.profile import NOTICE_SECONDS, needed_grace_seconds
from asclepius_ray.launch.cluster.validation.findings import Trouble
from asclepius_ray.launch.cluster.validation.launcher_parts import (
    STARTS,
    LauncherRule,
    cloud_of,
    is_preemptible,
    is_spot_of_aws,
    schedulings_of,
    texts_at,
    types_of,
)
from asclepius_ray.launch.cluster.validation.launcher_start_rules import START_RULES
from asclepius_ray.launch.cluster.validation.node_config_rules import node_config
from asclepius_ray.launch.cluster.validation.operator_cluster_rules import AUTOSCALER_VARIABLE
from asclepius_ray.launch.cluster.validation.policies import is_any_address
from asclepius_ray.launch.cluster.validation.reading import (
    list_at,
    number_at,
    table_at,
    text_at,
    value_at,
)
from asclepius_ray.launch.cluster.validation.schemas import place_of
from asclepius_ray.launch.cluster.yaml_text import Json

RAYS_ERRORS = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    NotImplementedError,
    jsonschema.ValidationError,
)
"""What the launcher's own preparation raises where something is missing or of the wrong type."""
MOST_IDLE_MINUTES = 30
SSH_PORT = 22
_DRAIN = re.compile(r"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=(\d+)")
_STOP_TIMEOUT = re.compile(r"--stop-timeout[= ](\d+)")


def _schema(launcher: Json) -> Iterator[Trouble]:
    import ray.autoscaler
    from ray.autoscaler._private.util import prepare_config, validate_config

    # It tells of every default that it fills in.
    logging.getLogger("ray.autoscaler").setLevel(logging.ERROR)

    schema = json.loads(Path(ray.autoscaler.__file__).with_name("ray-schema.json").read_text())
    errors = list(jsonschema.Draft7Validator(schema).iter_errors(launcher))
    for error in errors:
        yield Trouble(place_of(error), error.message, "correct it to what Ray's launcher takes")
    if errors:
        return
    try:
        prepared = prepare_config(copy.deepcopy(launcher))
        prepared.setdefault("cluster_synced_files", [])
        validate_config(prepared)
    except RAYS_ERRORS as error:
        said = " ".join(str(error).split())
        yield Trouble("available_node_types", f"Ray's launcher says: {said}", "correct the types of nodes")


def _head_stays(launcher: Json) -> Iterator[Trouble]:
    head = text_at(launcher, "head_node_type")
    node = table_at(launcher, "available_node_types", head, "node_config")
    path = f"available_node_types.{head}.node_config"
    said = "the head may be taken away, and the job ends with it"
    if is_spot_of_aws(node):
        yield Trouble(f"{path}.InstanceMarketOptions", said, "leave it out: spot is for workers")
    if any(map(is_preemptible, schedulings_of(node))):
        yield Trouble(f"{path}.scheduling", said, "leave it out: spot is for workers")


def _head_without_work(launcher: Json) -> Iterator[Trouble]:
    head = text_at(launcher, "head_node_type")
    if value_at(launcher, "available_node_types", head, "resources", "CPU") != 0:
        said = "tasks may run on the head, and one that takes its memory ends the job"
        yield Trouble(f"available_node_types.{head}.resources.CPU", said, "set 0")


def _worker_limit(launcher: Json) -> Iterator[Trouble]:
    most = number_at(launcher, "max_workers")
    for path, kind in types_of(launcher).items():
        if number_at(kind, "max_workers") > most:
            said = f"it is above the {most:g} workers that the whole cluster may have"
            yield Trouble(f"{path}.max_workers", said, "lower it, or raise the cluster's max_workers")
        if number_at(kind, "min_workers") > number_at(kind, "max_workers", default=most):
            yield Trouble(f"{path}.min_workers", "it is above max_workers", "lower it, or raise max_workers")


def _idle_timeout(launcher: Json) -> Iterator[Trouble]:
    starts = " ".join(texts_at(launcher, "head_start_ray_commands"))
    for path, kind in types_of(launcher).items():
        if "idle_timeout_s" in kind and f"{AUTOSCALER_VARIABLE}=1" not in starts:
            said = "only Ray's second autoscaler reads it, and on virtual machines the first one runs"
            advice = f"set the cluster's idle_timeout_minutes, or export {AUTOSCALER_VARIABLE}=1 on the head"
            yield Trouble(f"{path}.idle_timeout_s", said, advice)
    if number_at(launcher, "idle_timeout_minutes", default=5) > MOST_IDLE_MINUTES:
        said = f"nodes cost for more than {MOST_IDLE_MINUTES} minutes after the last stage that needed them"
        yield Trouble("idle_timeout_minutes", said, "set a few minutes")


def _token(launcher: Json) -> Iterator[Trouble]:
    for key in STARTS:
        starts = [command for command in texts_at(launcher, key) if "ray start" in command]
        if not starts:
            yield Trouble(key, "no command starts Ray", "write it, with RAY_AUTH_MODE=token")
        for command in starts:
            if "RAY_AUTH_MODE=token" not in command:
                yield Trouble(
                    key, "nobody is asked for a token", "export RAY_AUTH_MODE=token before ray start"
                )
    if not any(map(_is_token, table_at(launcher, "file_mounts"))):
        said = "the nodes have no token"
        yield Trouble("file_mounts", said, "mount ~/.ray/auth_token as /home/ray/.ray/auth_token")


def _dashboard(launcher: Json) -> Iterator[Trouble]:
    for command in texts_at(launcher, "head_start_ray_commands"):
        found = re.search(r"--dashboard-host[= ](\S+)", command)
        if found and found.group(1) not in ("127.0.0.1", "localhost"):
            said = f"the dashboard listens on {found.group(1)}, and starts jobs for who reaches it"
            advice = "set --dashboard-host=127.0.0.1 and use `ray dashboard`"
            yield Trouble("head_start_ray_commands", said, advice)
    rules = list_at(launcher, "provider", "security_group", "IpPermissions")
    for place, rule in enumerate(rules):
        opened = [
            text_at(span, key)
            for ranges, key in (("IpRanges", "CidrIp"), ("Ipv6Ranges", "CidrIpv6"))
            for span in list_at(rule, ranges)
        ]
        if any(map(is_any_address, opened)) and not _is_ssh_alone(rule):
            path = f"provider.security_group.IpPermissions[{place}]"
            yield Trouble(path, "it opens a port to everybody", "name the addresses that need it")


def _is_ssh_alone(rule: Json) -> bool:
    """Of any other protocol than TCP Amazon opens more than the ports that are named."""
    return text_at(rule, "IpProtocol") == "tcp" and [
        value_at(rule, end) for end in ("FromPort", "ToPort")
    ] == [SSH_PORT, SSH_PORT]


def _local_folder(launcher: Json) -> Iterator[Trouble]:
    advice = "put the code into the image, and data into the bucket"
    for target, source in table_at(launcher, "file_mounts").items():
        if not (_is_token(target) or target == KEYS_FILE) or not str(source).startswith(("~/", "/")):
            said = f"{source!r} is what whoever calls ray up has there; only the token and the keys travel"
            yield Trouble(f"file_mounts.{target}", said, advice)
    if found := list_at(launcher, "cluster_synced_files"):
        yield Trouble(
            "cluster_synced_files", f"{found[0]!r} would be sent from the head to every node", advice
        )
    if "working_dir" in json.dumps(value_at(launcher, "metadata")):
        yield Trouble("metadata", "it names a working directory", "put the code into the image")


def _drain(launcher: Json) -> Iterator[Trouble]:
    for key in STARTS:
        drains = [int(found) for command in texts_at(launcher, key) for found in _DRAIN.findall(command)]
        notice = NOTICE_SECONDS.get(cloud_of(launcher), 0)
        if not drains:
            said = "a node that is taken away drains for Ray's 30 s, whatever the cloud allows"
            yield Trouble(key, said, "export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S before ray start")
        elif max(drains) > notice > 0:
            said = f"it drains for {max(drains)} s, and a spot machine goes {notice} s after its notice"
            yield Trouble(key, said, f"drain for {notice} s or less")
        options = " ".join(texts_at(launcher, "docker", "run_options"))
        grace = max(map(int, _STOP_TIMEOUT.findall(options)), default=10)
        if drains and grace < (needed := needed_grace_seconds(max(drains))):
            said = (
                f"Docker kills the container {grace} s after it was told to stop, while it drains and saves"
            )
            yield Trouble("docker.run_options", said, f"add --stop-timeout={needed}")
            return


def _is_token(target: object) -> bool:
    return str(target).endswith("/.ray/auth_token")


LAUNCHER_RULES: dict[str, LauncherRule] = {
    "launcher-schema": _schema,
    "launcher-node-config": node_config,
    "launcher-head-stays": _head_stays,
    "launcher-head-without-work": _head_without_work,
    "launcher-worker-limit": _worker_limit,
    "launcher-idle-timeout": _idle_timeout,
    "launcher-token": _token,
    "launcher-dashboard": _dashboard,
    "launcher-local-folder": _local_folder,
    "launcher-drain": _drain,
    **START_RULES,
}
