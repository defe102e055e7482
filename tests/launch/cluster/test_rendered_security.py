"""TLS between nodes, the autoscaler's token and HAProxy in front, as they are rendered into pods."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.kuberay.node_provider import IN_CLUSTER_CA_CERT_PATH, IN_CLUSTER_TOKEN_PATH
from ray.serve.schema import ServeDeploySchema

from asclepius_ray.config import parse_section
from asclepius_ray.launch.cluster.kuberay import RunFile
from asclepius_ray.launch.cluster.profile import Profile, Target, load_profile
from asclepius_ray.launch.cluster.rendering import TARGETS_WITH_RUN, render
from asclepius_ray.launch.cluster.validation.manifests import Document, Group, RayResource
from asclepius_ray.launch.cluster.validation.validating import Knowledge, validate
from asclepius_ray.run import parse_run
from asclepius_ray.serving.application import build_application
from asclepius_ray.serving.application_settings import ApplicationSettings
from asclepius_ray.serving.scaling import WaitPolicy

PROFILES = Path(__file__).resolve().parents[3] / "cluster" / "profiles"
RUN = 'name = "small"\nroot = "runs/small"\n[input]\npath = "all.csv"\n'
TARGETS: tuple[Target, ...] = ("raycluster", "rayjob", "rayservice")


def _documents(target: Target, serving: str = "", **changes: object) -> list[Document]:
    values = load_profile(str(PROFILES / "kubernetes.toml")).model_dump()
    profile = parse_section(Profile, values | changes, "the profile")
    text = f"{RUN}[serving]\nuse_gpu = true\n{serving}"
    file = RunFile(text, parse_run(text, "the run file")) if target in TARGETS_WITH_RUN else None
    return [Document(f"{target}.yaml", document) for document in render(profile, target, file, "2.60.0")]


def _resource(documents: list[Document]) -> RayResource:
    return RayResource(documents[-1])


def _mounts(container: dict[str, Any]) -> set[str]:
    return {mount["name"] for mount in container["volumeMounts"]}


@pytest.mark.parametrize("target", TARGETS)
def test_every_pod_s_certificate_is_made_by_a_step_that_alone_sees_the_authority_s_key(
    target: Target, shared_data: Path
) -> None:
    documents = _documents(target, tls={"secret": "our-authority", "days": 30})
    resource = _resource(documents)
    for group in resource.groups:
        secrets = [volume["name"] for volume in group.pod["volumes"] if "secret" in volume]
        (step,) = [found for found in group.pod["initContainers"] if found["name"] == "ray-tls"]
        assert set(secrets) <= _mounts(step)
        assert not set(secrets) & _mounts(group.ray_container)
        assert {"name": "TLS_DAYS", "value": "30"} in step["env"]
        assert group.variables["RAY_USE_TLS"]["value"] == "1"
    options = resource.cluster["autoscalerOptions"]
    assert {"name": "RAY_USE_TLS", "value": "1"} in options["env"]
    assert {"name": "ray-tls", "mountPath": "/run/ray-tls", "readOnly": True} in options["volumeMounts"]
    found = validate(documents, Knowledge(crds=str(shared_data / "kuberay-crds"))).findings
    assert [str(finding) for finding in found if finding.rule != "keys-present"] == []


TOKEN_FOLDER = str(Path(IN_CLUSTER_TOKEN_PATH).parent)


@pytest.mark.parametrize("target", TARGETS)
def test_the_autoscaler_alone_has_a_token_for_kubernetes_and_no_job_sees_it(target: Target) -> None:
    resource = _resource(_documents(target, tls={}))
    for group in resource.groups:
        assert group.pod["automountServiceAccountToken"] is False
        tokens = [volume["name"] for volume in group.pod["volumes"] if "projected" in volume]
        assert bool(tokens) is group.is_head
        for _, container in group.containers:
            assert not _mounts(container) & set(tokens)
            assert not [one for one in container["volumeMounts"] if one["mountPath"] == TOKEN_FOLDER]
    (volume,) = [found for found in resource.head.pod["volumes"] if "projected" in found]
    mounts = {mount["name"]: mount for mount in resource.cluster["autoscalerOptions"]["volumeMounts"]}
    assert mounts[volume["name"]]["mountPath"] == TOKEN_FOLDER
    files = {Path(TOKEN_FOLDER, name) for name in _projected_files(volume)}
    assert files >= {Path(IN_CLUSTER_TOKEN_PATH), Path(IN_CLUSTER_CA_CERT_PATH)}


def _projected_files(volume: dict[str, Any]) -> list[str]:
    found: list[str] = []
    for source in volume["projected"]["sources"]:
        (content,) = source.values()
        found += [item["path"] for item in content.get("items", [content])]
    return found


def test_without_an_autoscaler_there_is_no_token_at_all() -> None:
    resource = _resource(_documents("rayjob", queue={"system": "kueue", "name": "team"}))
    assert not [
        volume for group in resource.groups for volume in group.pod["volumes"] if "projected" in volume
    ]


@pytest.mark.parametrize("target", TARGETS)
def test_without_the_section_no_pod_speaks_of_tls(target: Target) -> None:
    for group in _resource(_documents(target)).groups:
        assert not [name for name in group.variables if "TLS" in name]


def _steps(group: Group) -> list[str]:
    return [container["name"] for container in group.pod.get("initContainers", [])]


def test_haproxy_is_in_every_pod_of_a_service_and_in_no_other() -> None:
    service = _resource(_documents("rayservice"))
    assert [_steps(group) for group in service.groups] == [["haproxy"]] * len(service.groups)
    for group in service.groups:
        assert group.variables["RAY_SERVE_ENABLE_HA_PROXY"]["value"] == "1"
    assert not any(_steps(group) for group in _resource(_documents("rayjob")).groups)


def test_a_range_of_replicas_follows_the_load_in_the_application_that_serve_builds() -> None:
    service = _resource(_documents("rayservice", "replicas = [1, 2]\ntarget_wait_seconds = 3.0"))
    configuration = ServeDeploySchema.model_validate(yaml.safe_load(service.spec["serveConfigV2"]))
    settings = ApplicationSettings.model_validate(configuration.applications[0].args)
    built = build_application(settings.model_copy(update={"api_key_sha256": "0" * 64}))
    scaling = built._bound_deployment._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas) == (1, 2)
    assert scaling.policy.policy_kwargs == {"target_wait_seconds": 3.0}
    assert scaling.policy.policy_function.endswith(WaitPolicy.__name__)


def test_an_upgrade_and_a_drained_node_leave_answers_their_time() -> None:
    service = _resource(_documents("rayservice", "drain_seconds = 300.0"))
    assert service.spec["rayClusterDeletionDelaySeconds"] == 360
    for group in service.workers:
        hook = group.ray_container["lifecycle"]["preStop"]["exec"]["command"]
        assert hook[-2:] == ["--grace-seconds", "300"]
        assert group.pod["terminationGracePeriodSeconds"] == 300 + 300 + 15


@pytest.mark.parametrize(("fewest", "stay"), [(0, 1), (1, 1), (2, 1), (4, 3)])
def test_one_pod_that_serves_goes_at_a_time_and_the_last_one_never(fewest: int, stay: int) -> None:
    workers = load_profile(str(PROFILES / "kubernetes.toml")).model_dump()["workers"]
    workers["serving"] |= {"fewest": fewest, "most": 4}
    documents = _documents("rayservice", workers=workers)
    (budget,) = [
        one.value for one in documents if one.name == "asclepius-model-serving" and "Budget" in one.kind
    ]
    assert budget["spec"]["minAvailable"] == stay


def test_the_volume_is_written_where_the_audit_is_and_else_only_read() -> None:
    for serving, is_read_only in (("", True), ('audit = "/data/audit"', False)):
        documents = _documents("rayservice", serving)
        for group in _resource(documents).groups:
            (data,) = [mount for mount in group.ray_container["volumeMounts"] if mount["name"] == "data"]
            assert data.get("readOnly", False) is is_read_only
        assert not [
            one for one in validate(documents, Knowledge()).findings if one.rule == "service-audit-kept"
        ]
