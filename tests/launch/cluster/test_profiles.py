"""What a profile may say."""

import copy
from pathlib import Path
from typing import Any

import pytest

from asclepius_ray.config import parse_section
from asclepius_ray.errors import ConfigError
from asclepius_ray.launch.cluster.profile import Profile, load_profile

VALUES: dict[str, Any] = {
    "cloud": {"kind": "kubernetes"},
    "image": {"name": "registry.example.com/asclepius-ray:0.1.0"},
    "head": {"cpus": 4, "memory_gib": 16},
    "workers": {"training": {"cpus": 32, "memory_gib": 512, "gpus": 8, "gpu_memory_gib": 80}},
    "storage": {"volume": {"storage_class": "shared"}},
}
AWS: dict[str, Any] = {
    **VALUES,
    "cloud": {"kind": "aws", "region": "us-east-1", "role": "asclepius-ray"},
    "head": {"cpus": 4, "memory_gib": 16, "machine_type": "m6i.xlarge"},
    "workers": {"synthesis": {"cpus": 16, "memory_gib": 32, "machine_type": "c6i.4xlarge"}},
    "storage": {"bucket": {"uri": "s3://bucket/runs"}},
}
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
IN_BUCKET: dict[str, Any] = {
    **VALUES,
    "storage": {"bucket": {"uri": "s3://bucket/runs"}},
    "secrets": {"required": KEYS},
}
WITH_ROLE: dict[str, Any] = {
    **VALUES,
    "cloud": {"kind": "kubernetes", "role": "asclepius-ray"},
    "storage": {"bucket": {"uri": "gs://bucket/runs"}},
}
KUEUE: dict[str, Any] = {**VALUES, "queue": {"system": "kueue", "name": "team"}}


def _with(values: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    changed = copy.deepcopy(values)
    place = changed
    *parents, last = path.split(".")
    for part in parents:
        place = place.setdefault(part, {})
    place[last] = value
    return changed


def test_profiles_of_a_cloud_and_of_kubernetes_are_read() -> None:
    one_time = {**KUEUE, "job": {"keep_failed_seconds": 600, "keep_finished_seconds": 600}}
    for values in (VALUES, AWS, KUEUE, one_time, IN_BUCKET, WITH_ROLE):
        assert parse_section(Profile, values, "the profile").name == "asclepius"


@pytest.mark.parametrize(
    ("values", "path", "value", "complaint"),
    [
        (VALUES, "hed", {}, "hed: there is no such setting"),
        (VALUES, "name", "Asclepius_Ray", "name: "),
        (VALUES, "cloud.region", "us-east-1", 'region does nothing where kind = "kubernetes"'),
        (AWS, "cloud.role", "", 'role is needed where kind = "aws"'),
        (AWS, "cloud.zone", "a", 'zone does nothing where kind = "aws"'),
        (AWS, "head.machine_type", "", "head.machine_type is needed on aws"),
        (AWS, "workers.synthesis.machine_type", "", "workers.synthesis.machine_type is needed on aws"),
        (AWS, "head.node_labels", {"disk": "fast"}, "head.node_labels is for Kubernetes"),
        (AWS, "queue", {"system": "kueue", "name": "team"}, "queue is for Kubernetes"),
        (AWS, "network", {"ports": [9000]}, "network is for Kubernetes"),
        (AWS, "tls", {}, "tls is for Kubernetes"),
        (AWS, "image.pull_secrets", ["registry"], "image.pull_secrets is for Kubernetes"),
        (AWS, "image.project_folder", "/opt/ours", "image.project_folder is for Kubernetes"),
        (AWS, "authentication.secret", "token", "authentication.secret is for Kubernetes"),
        (AWS, "secrets.secret", "keys", "secrets.secret is for Kubernetes"),
        (AWS, "secrets.optional", ["HF_TOKEN"], "secrets.optional is for Kubernetes"),
        (AWS, "job", {"name": "train"}, "job is for Kubernetes"),
        (AWS, "overlay.gcp", "a: b", "overlay.gcp is laid over nothing"),
        (AWS, "overlay.rayjob", "a: b", "overlay.rayjob is laid over nothing"),
        (VALUES, "overlay.aws", "a: b", "overlay.aws is laid over nothing"),
        (VALUES, "cloud.ssh_user", "ec2-user", "cloud.ssh_user is for AWS and Google"),
        (VALUES, "head.machine_type", "m6i.large", "head.machine_type is for AWS and Google"),
        (VALUES, "workers.training.disk_gib", 500, "workers.training.disk_gib is for AWS and Google"),
        (VALUES, "authentication.token_file", "~/token", "authentication.token_file is for AWS and"),
        (VALUES, "secrets.file", "~/keys.env", "secrets.file is for AWS and Google"),
        (VALUES, "network.outside", ["10.20.0.0/16"], "set api_server to its addresses"),
        (VALUES, "network.api_server", ["10.0.0.1/32"], "api_server is for a closed network"),
        (VALUES, "network.outside", ["10.20.0.1/16"], "write a range of addresses as"),
        (VALUES, "network.ports", [70000], "network.ports"),
        (VALUES, "network.monitoring_namespaces", ["Monitoring"], "network.monitoring_namespaces"),
        (VALUES, "tls.days", 0, "tls.days"),
        (AWS, "storage", {"volume": {"storage_class": "shared"}}, "storage.volume is for Kubernetes"),
        (
            AWS,
            "shutdown",
            {"drain_seconds": 130, "grace_seconds": 300},
            "takes a spot machine away after 120",
        ),
        (VALUES, "workers", {}, "workers: "),
        (VALUES, "workers.judging", {"cpus": 1, "memory_gib": 1}, "workers.judging"),
        (VALUES, "workers.training.fewest", 3, "fewest is 3, more than most (1)"),
        (VALUES, "workers.training.gpu_memory_gib", 0, "gpus and gpu_memory_gib go together"),
        (VALUES, "storage", {}, "give one of storage.bucket and storage.volume"),
        (VALUES, "storage.bucket", {"uri": "s3://bucket"}, "give one of storage.bucket and storage.volume"),
        (VALUES, "storage", {"bucket": {"uri": "bucket/runs"}}, "storage.bucket.uri"),
        (
            VALUES,
            "storage",
            {"bucket": {"uri": "gs://bucket", "endpoint": "minio:9000"}},
            "endpoint is for s3://",
        ),
        (
            VALUES,
            "storage",
            {"bucket": {"uri": "s3://bucket", "endpoint_scheme": "http"}},
            'endpoint_scheme = "http" is for an endpoint',
        ),
        (
            VALUES,
            "storage",
            {"bucket": {"uri": "s3://bucket"}},
            "nothing opens the bucket s3://bucket (storage.bucket.uri) for the pods: set cloud.role",
        ),
        (
            {**IN_BUCKET, "secrets": {"required": ["AWS_ACCESS_KEY_ID"]}},
            "storage.bucket.uri",
            "s3://bucket",
            "name AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in secrets.required",
        ),
        (IN_BUCKET, "storage.bucket.uri", "gs://bucket", "set cloud.role to the Kubernetes service account"),
        (
            VALUES,
            "storage",
            {"bucket": {"uri": "s3://bucket", "kms_key": "k"}},
            "kms_key is for AWS and Google",
        ),
        (VALUES, "shutdown.grace_seconds", 60, "set 135 or more"),
        (VALUES, "shutdown", {"drain_seconds": 100, "grace_seconds": 175}, "set 215 or more"),
        (
            VALUES,
            "queue",
            {"system": "kueue", "name": "team", "priority_class": "high"},
            'priority_class is for system = "volcano"',
        ),
        (KUEUE, "job.keep_failed_seconds", 3600, "job.keep_failed_seconds is 3600"),
    ],
)
def test_a_wrong_profile_is_refused_with_what_to_do(
    values: dict[str, Any], path: str, value: object, complaint: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_section(Profile, _with(values, path, value), "the profile")
    assert complaint in str(caught.value)


def test_a_profile_that_is_not_there_or_no_toml_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no profile"):
        load_profile(str(tmp_path / "none.toml"))
    (tmp_path / "broken.toml").write_text("name = ")
    with pytest.raises(ConfigError, match="is not valid TOML"):
        load_profile(str(tmp_path / "broken.toml"))
