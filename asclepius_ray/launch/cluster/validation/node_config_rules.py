"""What EC2 and Google Cloud take of a machine that `ray up` asks for. Pure."""

from collections.abc import Iterator

from asclepius_ray.launch.cluster.validation.findings import Trouble
from asclepius_ray.launch.cluster.validation.launcher_parts import (
    cloud_of,
    schedulings_of,
    types_of,
    workers_of,
)
from asclepius_ray.launch.cluster.validation.reading import list_at, number_at, table_at, text_at
from asclepius_ray.launch.cluster.yaml_text import Json

UNUSABLE_ON_AWS = frozenset({"ClientToken", "DryRun"})
"""EC2 knows them; with one no machine starts, with the other never a second."""
AWS_NODE_KEYS = frozenset(
    {
        # Ray's own: it takes one of them for each machine.
        "SubnetIds",
        # What EC2's RunInstances takes.
        "AdditionalInfo",
        "BlockDeviceMappings",
        "CapacityReservationSpecification",
        "CpuOptions",
        "CreditSpecification",
        "DisableApiStop",
        "DisableApiTermination",
        "EbsOptimized",
        "ElasticGpuSpecification",
        "ElasticInferenceAccelerators",
        "EnablePrimaryIpv6",
        "EnclaveOptions",
        "HibernationOptions",
        "IamInstanceProfile",
        "ImageId",
        "InstanceInitiatedShutdownBehavior",
        "InstanceMarketOptions",
        "InstanceType",
        "Ipv6AddressCount",
        "Ipv6Addresses",
        "KernelId",
        "KeyName",
        "LaunchTemplate",
        "LicenseSpecifications",
        "MaintenanceOptions",
        "MaxCount",
        "MetadataOptions",
        "MinCount",
        "Monitoring",
        "NetworkInterfaces",
        "NetworkPerformanceOptions",
        "Operator",
        "Placement",
        "PrivateDnsNameOptions",
        "PrivateIpAddress",
        "RamdiskId",
        "SecondaryInterfaces",
        "SecurityGroupIds",
        "SecurityGroups",
        "SubnetId",
        "TagSpecifications",
        "UserData",
    }
)
AWS_MARKETS = ("spot", "capacity-block", "interruptible-capacity-reservation", "on-demand")
GOOGLE_TEMPLATE = "sourceInstanceTemplate"
GOOGLE_NODE_KEYS = frozenset(
    {
        # Ray takes it out, and gives it beside the instance.
        GOOGLE_TEMPLATE,
        # What may be set of Compute Engine's instances.
        "advancedMachineFeatures",
        "canIpForward",
        "confidentialInstanceConfig",
        "deletionProtection",
        "description",
        "disks",
        "displayDevice",
        "guestAccelerators",
        "hostname",
        "instanceEncryptionKey",
        "keyRevocationActionType",
        "labels",
        "machineType",
        "metadata",
        "minCpuPlatform",
        "networkInterfaces",
        "networkPerformanceConfig",
        "params",
        "privateIpv6GoogleAccess",
        "reservationAffinity",
        "resourcePolicies",
        "scheduling",
        "serviceAccounts",
        "shieldedInstanceConfig",
        "shieldedInstanceIntegrityPolicy",
        "sourceMachineImage",
        "sourceMachineImageEncryptionKey",
        "tags",
        "workloadIdentityConfig",
    }
)


def node_config(launcher: Json) -> Iterator[Trouble]:
    """Settings that the cloud does not know, and those without which a machine does not start or not work."""
    is_google = cloud_of(launcher) == "gcp"
    known = GOOGLE_NODE_KEYS if is_google else AWS_NODE_KEYS
    for path, kind in types_of(launcher).items():
        node = table_at(kind, "node_config")
        for key in sorted(set(node) - known, key=str):
            is_unusable = not is_google and key in UNUSABLE_ON_AWS
            said = "with it the machines do not start" if is_unusable else "the cloud knows no such setting"
            yield Trouble(
                f"{path}.node_config.{key}", said, "leave it out" if is_unusable else "check its spelling"
            )
        for key in _needed_on_google(node) if is_google else _needed_on_aws(node):
            if key not in node:
                yield Trouble(f"{path}.node_config.{key}", "a machine cannot be had without it", "add it")
        stays = [table for table in schedulings_of(node) if text_at(table, "onHostMaintenance")]
        if is_google and number_at(kind, "resources", "GPU") and not stays:
            said = "a machine with GPUs cannot be moved while it runs"
            advice = "add onHostMaintenance: TERMINATE"
            yield Trouble(f"{path}.node_config.scheduling", said, advice)
        market = table_at(node, "InstanceMarketOptions").get("MarketType", "spot")
        if not is_google and market not in AWS_MARKETS:
            place = f"{path}.node_config.InstanceMarketOptions.MarketType"
            yield Trouble(place, f"EC2 knows no market {market!r}", "set spot, in lower case")
    if is_google:
        yield from _accounts(launcher)


def _needed_on_aws(node: Json) -> tuple[str, ...]:
    """Ray itself asks for the type; a template may have the role."""
    return ("InstanceType",) if "LaunchTemplate" in node else ("InstanceType", "IamInstanceProfile")


def _needed_on_google(node: Json) -> tuple[str, ...]:
    """Ray itself asks for the type; a template or a machine's image may have the disks."""
    has_disks = {GOOGLE_TEMPLATE, "sourceMachineImage"} & node.keys()
    return ("machineType",) if has_disks else ("machineType", "disks")


def _accounts(launcher: Json) -> Iterator[Trouble]:
    """Workers of Google Cloud that have no account; Ray gives the head one of its own."""
    for path, kind in workers_of(launcher).items():
        node = table_at(kind, "node_config")
        # What a template or a machine's image has is not seen here.
        is_elsewhere = {GOOGLE_TEMPLATE, "sourceMachineImage"} & node.keys()
        if "node_config" in kind and not is_elsewhere and not list_at(node, "serviceAccounts"):
            said = "the machines have no account, and can open no bucket"
            advice = "name the account's email, with the scope cloud-platform"
            yield Trouble(f"{path}.node_config.serviceAccounts", said, advice)
