"""What the rules on files of `ray up` must not accuse: settings and commands that are right."""

from typing import Any

import pytest
from committed import changed, documents_of
from seeds import TYPES

from asclepius_ray.launch.cluster.validation.node_config_rules import (
    AWS_MARKETS,
    AWS_NODE_KEYS,
    UNUSABLE_ON_AWS,
)
from asclepius_ray.launch.cluster.validation.validating import Knowledge, validate

NODE = f"{TYPES}/training/node_config"
WATCH = 'nohup bash -c "asclepius drain-watch" &'
ON_DEMAND = [(f"{TYPES}/{name}/node_config/InstanceMarketOptions", ...) for name in ("synthesis", "training")]


def _findings(file: str, changes: list[tuple[str, Any]]) -> list[str]:
    documents = changed(documents_of(file), file, "launcher", changes)
    return [str(finding) for finding in validate(documents, Knowledge()).findings]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("UserData", "#!/bin/sh"),
        ("LaunchTemplate", {"LaunchTemplateName": "gpus"}),
        ("CpuOptions", {"CoreCount": 48, "ThreadsPerCore": 1}),
        ("Monitoring", {"Enabled": True}),
        ("SubnetIds", ["subnet-1"]),
        ("InstanceMarketOptions", {"MarketType": "capacity-block"}),
    ],
)
def test_what_ec2_takes_is_no_mistake(key: str, value: object) -> None:
    assert _findings("aws.yaml", [(f"{NODE}/{key}", value)]) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("advancedMachineFeatures", {"threadsPerCore": 1}),
        ("networkPerformanceConfig", {"totalEgressBandwidthTier": "TIER_1"}),
        ("resourcePolicies", ["compact"]),
        ("canIpForward", True),
        ("scheduling", {"preemptible": True, "onHostMaintenance": "TERMINATE"}),
    ],
)
def test_what_google_cloud_takes_is_no_mistake(key: str, value: object) -> None:
    assert _findings("gcp.yaml", [(f"{NODE}/{key}", value)]) == []


def test_the_settings_of_aws_are_those_that_its_own_model_has() -> None:
    session = pytest.importorskip("botocore.session").get_session()
    asked = session.get_service_model("ec2").operation_model("RunInstances").input_shape.members
    assert set(asked) - UNUSABLE_ON_AWS | {"SubnetIds"} == AWS_NODE_KEYS
    assert set(AWS_MARKETS) == set(asked["InstanceMarketOptions"].members["MarketType"].enum)


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("aws.yaml", [(f"{NODE}/LaunchTemplate", {"Version": "1"}), (f"{NODE}/IamInstanceProfile", ...)]),
        (
            "gcp.yaml",
            [
                (f"{NODE}/sourceInstanceTemplate", "global/instanceTemplates/gpus"),
                (f"{NODE}/serviceAccounts", ...),
                (f"{NODE}/disks", ...),
            ],
        ),
        ("gcp.yaml", [(f"{TYPES}/head/node_config/serviceAccounts", ...)]),
    ],
    ids=["role", "disks and account", "Ray's own account"],
)
def test_what_a_template_or_ray_brings_need_not_stand_in_the_file(
    file: str, changes: list[tuple[str, Any]]
) -> None:
    assert _findings(file, changes) == []


@pytest.mark.parametrize(
    "changes",
    [
        [("worker_setup_commands", []), *ON_DEMAND],
        [("worker_setup_commands", []), ("setup_commands", [WATCH])],
        [("worker_setup_commands/0", WATCH.replace("watch", "watch --provider auto"))],
        [(f"{TYPES}/{name}/worker_setup_commands", [WATCH]) for name in ("synthesis", "training")],
    ],
    ids=["on demand", "of all nodes", "auto", "of each type"],
)
def test_spot_notices_may_be_watched_for_in_several_ways_and_only_on_spot_machines(
    changes: list[tuple[str, Any]],
) -> None:
    assert _findings("aws.yaml", changes) == []


@pytest.mark.parametrize(
    "changes",
    [
        [("initialization_commands", ["aws s3 cp s3://keys/keys.env /home/ray/keys.env"])],
        [("docker/run_options/2", "-v /srv/keys.env:/home/ray/keys.env:ro")],
    ],
    ids=["fetched", "mounted by Docker"],
)
def test_the_keys_may_come_otherwise_than_by_a_mount(changes: list[tuple[str, Any]]) -> None:
    token = {"/home/ray/.ray/auth_token": "~/.ray/auth_token"}
    assert _findings("aws.yaml", [("file_mounts", token), *changes]) == []


def test_head_and_workers_may_each_have_an_image_and_none_is_for_all() -> None:
    own = [("docker/head_image", "registry/a:1"), ("docker/worker_image", "registry/a:2")]
    assert _findings("aws.yaml", [("docker/image", ...), *own]) == []
