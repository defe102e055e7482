"""The manifests of cluster/ are what Kubernetes, KubeRay, Ray and this project's jobs expect."""

import copy
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from kuberay_rules import (
    CLUSTER_KEYS,
    Json,
    broken_rules,
    environment_of,
    groups_of,
    load_schema,
    schema_errors,
)
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.serve.schema import ServeApplicationSchema, ServeDeploySchema

from asclepius_ray.launch.locations import expected_variables
from asclepius_ray.run import Run, load_run

PROJECT = Path(__file__).resolve().parents[2]
CLUSTER = PROJECT / "cluster"
RUN_FILE = PROJECT / "jobs" / "runs" / "llama3-8b.toml"
UPLOAD_SECONDS = 60
SPARE_SECONDS = 15


def _documents(name: str) -> list[Json]:
    return [found for found in yaml.safe_load_all((CLUSTER / name).read_text()) if found]


def _manifest(kind: str) -> Json:
    (found,) = [found for found in _documents(f"{kind.lower()}.yaml") if found["kind"] == kind]
    # A copy without shared parts: an anchor in YAML is one object in Python, and a test changes one place.
    return yaml.safe_load(yaml.dump(found, Dumper=_PlainDumper))


class _PlainDumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


def _change(path: str, value: object) -> Callable[[Json], None]:
    """Sets one place of a manifest, or takes it away with `...`."""

    def change(manifest: Json) -> None:
        place: Any = manifest
        *parents, last = [int(part) if part.isdigit() else part for part in path.split("/")]
        for part in parents:
            place = place[part]
        if value is ...:
            del place[last]
        else:
            place[last] = value

    return change


@pytest.fixture(scope="module")
def schemas(shared_data: Path) -> dict[str, Json]:
    return {kind: load_schema(shared_data / "kuberay-crds", kind) for kind in CLUSTER_KEYS}


@pytest.mark.parametrize("kind", CLUSTER_KEYS)
def test_a_manifest_fits_the_schema_of_its_resource(kind: str, schemas: dict[str, Json]) -> None:
    assert schema_errors(_manifest(kind), schemas[kind]) == []


@pytest.mark.parametrize(
    ("kind", "path", "value", "complaint"),
    [
        ("RayJob", "spec/entryPoint", "python x.py", "'entryPoint' was unexpected"),
        ("RayJob", "spec/submissionMode", 3, "is not of type 'string'"),
        ("RayJob", "spec/deletionStrategy/deletionRules/0/policy", "DeleteAll", "is not one of"),
        ("RayJob", "spec/rayClusterSpec/headGroupSpec", ..., "'headGroupSpec' is a required property"),
        ("RayJob", "spec/rayClusterSpec/authOptions/mode", "Token", "is not one of"),
        (
            "RayJob",
            "spec/rayClusterSpec/workerGroupSpecs/0/template/spec/containers/0/env/0/val",
            "60",
            "'val' was unexpected",
        ),
        ("RayJob", "spec/rayClusterSpec/headGroupSpec/rayStartParams/num-cpus", 0, "is not of type 'string'"),
        ("RayService", "spec/serveConfig", "", "'serveConfig' was unexpected"),
        (
            "RayService",
            "spec/rayClusterConfig/workerGroupSpecs/0/maxReplica",
            3,
            "'maxReplica' was unexpected",
        ),
    ],
)
def test_the_schema_refuses_a_seeded_mistake(
    kind: str, path: str, value: object, complaint: str, schemas: dict[str, Json]
) -> None:
    manifest = _manifest(kind)
    _change(path, value)(manifest)
    (error,) = schema_errors(manifest, schemas[kind])
    assert complaint in error


@pytest.mark.parametrize("kind", CLUSTER_KEYS)
def test_a_manifest_keeps_the_operator_s_own_rules(kind: str) -> None:
    assert broken_rules(_manifest(kind)) == []


JOB_HEAD = "spec/rayClusterSpec/headGroupSpec"
JOB_WORKER = "spec/rayClusterSpec/workerGroupSpecs/1"


@pytest.mark.parametrize(
    ("kind", "path", "value", "complaint"),
    [
        ("RayJob", "metadata/name", "asclepius_pipeline", "DNS label"),
        ("RayJob", "metadata/name", "a" * 48, "DNS label"),
        ("RayJob", "spec/clusterSelector", {"ray.io/cluster": "mine"}, "exactly one of"),
        ("RayJob", "spec/shutdownAfterJobFinishes", True, "deletionRules exclude"),
        ("RayJob", "spec/ttlSecondsAfterFinished", 60, "ttlSecondsAfterFinished needs"),
        ("RayJob", "spec/submissionMode", "InteractiveMode", "backoffLimit"),
        ("RayJob", "spec/activeDeadlineSeconds", 0, "deadlines"),
        ("RayJob", "spec/suspend", True, "suspend needs"),
        ("RayJob", "spec/submitterPodTemplate", {}, "no submitter of its own"),
        ("RayJob", f"{JOB_HEAD}/template/spec/restartPolicy", "Always", "the head's restartPolicy"),
        ("RayJob", f"{JOB_WORKER}/template/spec/restartPolicy", "Always", "training: autoscaler v2"),
        ("RayJob", f"{JOB_WORKER}/rayStartParams/labels", "a=b", "labels do not go"),
        ("RayJob", f"{JOB_WORKER}/idleTimeoutSeconds", -1, "idleTimeoutSeconds"),
        (
            "RayJob",
            f"{JOB_WORKER}/template/spec/containers/0/env/0/name",
            "RAY_enable_autoscaler_v2",
            "version stands",
        ),
        ("RayJob", f"{JOB_WORKER}/template/spec/containers", [], "a Ray container"),
        ("RayJob", f"{JOB_HEAD}/resources", {"CPU": "0"}, "not in both"),
        ("RayJob", f"{JOB_WORKER}/minReplicas", 3, "above maxReplicas"),
        ("RayJob", f"{JOB_WORKER}/suspend", True, "the autoscaler and suspend"),
        ("RayJob", "spec/rayClusterSpec/authOptions", {}, "authOptions.mode"),
        ("RayJob", "spec/rayClusterSpec/rayVersion", "2.49.0", "needs Ray 2.52"),
        ("RayService", "spec/rayClusterConfig/authOptions/mode", ..., "authOptions.mode"),
        ("RayService", "spec/rayClusterConfig/workerGroupSpecs/0/maxReplicas", ..., "are required"),
        (
            "RayService",
            "spec/rayClusterConfig/headGroupSpec/headService",
            {"metadata": {"name": "mine"}},
            "cannot be set",
        ),
        ("RayService", "spec/upgradeStrategy/type", "Rolling", "upgradeStrategy.type"),
    ],
)
def test_the_rules_refuse_a_seeded_mistake(kind: str, path: str, value: object, complaint: str) -> None:
    manifest = _manifest(kind)
    _change(path, value)(manifest)
    assert any(complaint in line for line in broken_rules(manifest)), broken_rules(manifest)


def _unsafe_pods(cluster: Json) -> list[str]:
    """What would lose work, leak a right or differ from this project, in words."""
    found = []
    for group in groups_of(cluster):
        name, pod = group.get("groupName", "head"), group["template"]["spec"]
        drain = int(environment_of(group).get("RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S", 30))
        if pod.get("terminationGracePeriodSeconds", 30) < drain + UPLOAD_SECONDS + SPARE_SECONDS:
            found.append(f"{name}: killed before it has drained and saved")
        if not pod.get("securityContext", {}).get("runAsNonRoot"):
            found.append(f"{name}: may run as root")
        for container in pod["containers"]:
            if container.get("securityContext", {}).get("allowPrivilegeEscalation") is not False:
                found.append(f"{name}: may gain rights")
            mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
            if mounted != {volume["name"] for volume in pod.get("volumes", [])}:
                found.append(f"{name}: volumes and mounts differ")
            keys = {
                key: value for key, value in environment_of(group).items() if key.endswith(("KEY", "TOKEN"))
            }
            found += [
                f"{name}: {key} is written out" for key, value in keys.items() if isinstance(value, str)
            ]
    return found


@pytest.mark.parametrize("kind", CLUSTER_KEYS)
def test_pods_drain_before_they_are_killed_run_without_root_and_hold_no_key(kind: str) -> None:
    assert _unsafe_pods(_manifest(kind)["spec"][CLUSTER_KEYS[kind]]) == []


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("terminationGracePeriodSeconds", 60, "killed before"),
        ("terminationGracePeriodSeconds", ..., "killed before"),
        ("securityContext/runAsNonRoot", ..., "may run as root"),
        ("containers/0/securityContext", {}, "may gain rights"),
        ("containers/0/volumeMounts/0/name", "other", "volumes and mounts differ"),
        ("containers/0/env/3", {"name": "OPENAI_API_KEY", "value": "a-key"}, "OPENAI_API_KEY is written out"),
    ],
)
def test_an_unsafe_pod_is_noticed(path: str, value: object, complaint: str) -> None:
    cluster = _manifest("RayJob")["spec"]["rayClusterSpec"]
    _change(f"workerGroupSpecs/1/template/spec/{path}", value)(cluster)
    assert any(f"training: {complaint}" in line for line in _unsafe_pods(cluster))


def _entrypoint(job: Json) -> tuple[str, str, list[str]]:
    """The job's name, its run file and its overrides."""
    interpreter, page, run_file, *arguments = shlex.split(job["spec"]["entrypoint"])
    assert interpreter == "python"
    assert arguments[::2] == ["--set"] * (len(arguments) // 2)
    return page, run_file, arguments[1::2]


def _run_of(job: Json) -> Run:
    """The run that the manifest starts, with the run file that README.md mounts."""
    return load_run(str(RUN_FILE), _entrypoint(job)[2])


def test_every_job_that_a_file_of_the_cluster_names_exists() -> None:
    named = {
        found
        for path in CLUSTER.iterdir()
        if path.is_file()
        for found in re.findall(r"jobs/[\w./-]+\.(?:py|toml)", path.read_text())
    }
    assert "jobs/pipeline.py" in named
    assert [name for name in named if not (PROJECT / name).is_file()] == []


def test_the_rayjob_s_paths_are_on_volumes_that_all_its_pods_mount() -> None:
    job = _manifest("RayJob")
    _, run_file, _ = _entrypoint(job)
    run = _run_of(job)
    for group in groups_of(job["spec"]["rayClusterSpec"]):
        mounts = [mount["mountPath"] for mount in group["template"]["spec"]["containers"][0]["volumeMounts"]]
        for path in (run.root, run.input.path, environment_of(group)["HF_HOME"], run_file):
            assert any(path.startswith(f"{mount}/") for mount in mounts), path


def test_every_pod_of_the_rayjob_holds_the_keys_that_its_run_reads() -> None:
    job = _manifest("RayJob")
    expected = expected_variables("pipeline", _run_of(job))
    assert {"OPENAI_API_KEY", "HF_TOKEN"} <= set(expected)
    for group in groups_of(job["spec"]["rayClusterSpec"]):
        assert set(expected) <= set(environment_of(group))


def test_the_rayjob_s_workers_are_enough_for_its_run() -> None:
    job = _manifest("RayJob")
    run = _run_of(job)
    total = {"cpu": 0, "nvidia.com/gpu": 0}
    for group in job["spec"]["rayClusterSpec"]["workerGroupSpecs"]:
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        for name in total:
            total[name] += group["maxReplicas"] * int(limits.get(name, 0))
    assert run.training.use_gpu
    assert total["nvidia.com/gpu"] >= run.training.workers.fewest
    assert total["cpu"] >= run.training.workers.fewest + run.synthesis.workers


def test_the_disruption_budget_selects_the_head_and_nothing_else() -> None:
    (budget,) = [found for found in _documents("rayjob.yaml") if found["kind"] == "PodDisruptionBudget"]
    wanted = budget["spec"]["selector"]["matchLabels"]
    groups = groups_of(_manifest("RayJob")["spec"]["rayClusterSpec"])
    selected = [wanted.items() <= group["template"]["metadata"]["labels"].items() for group in groups]
    assert selected == [True, False, False]


def _serve_configuration() -> Json:
    return yaml.safe_load(_manifest("RayService")["spec"]["serveConfigV2"])


def test_the_rayservice_s_application_is_one_that_this_package_builds() -> None:
    from asclepius_ray.serving.application import ApplicationSettings, build_application

    configuration = _serve_configuration()
    deployed = ServeDeploySchema.model_validate(configuration)
    # Serve ignores what it does not know; a misspelt key would be lost without a word.
    assert set(configuration) <= set(ServeDeploySchema.model_fields)
    (application,) = configuration["applications"]
    assert set(application) <= set(ServeApplicationSchema.model_fields)
    assert application["import_path"] == f"{build_application.__module__}:{build_application.__name__}"
    settings = ApplicationSettings.model_validate(deployed.applications[0].args)
    (group,) = _manifest("RayService")["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    gpus = int(group["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"])
    assert settings.serving.replicas.most <= group["maxReplicas"] * gpus
    assert settings.serving.api_key_env in environment_of(group)


def test_the_rayservice_serves_the_model_that_the_rayjob_trains() -> None:
    (application,) = _serve_configuration()["applications"]
    assert application["args"]["model"] == f"{_run_of(_manifest('RayJob')).root}/model"
    service, job = _manifest("RayService"), _manifest("RayJob")
    claims = [
        groups_of(manifest["spec"][CLUSTER_KEYS[manifest["kind"]]])[0]["template"]["spec"]["volumes"][0]
        for manifest in (service, job)
    ]
    assert claims[0] == claims[1]


def test_ray_and_its_images_have_the_pinned_version() -> None:
    (pinned,) = re.findall(r"^ray==(\S+)$", (PROJECT / "constraints.txt").read_text(), re.MULTILINE)
    for kind, key in CLUSTER_KEYS.items():
        assert _manifest(kind)["spec"][key]["rayVersion"] == pinned
    assert f":{pinned}-py311" in _aws()["docker"]["image"]


def _aws() -> Json:
    (found,) = _documents("aws.yaml")
    return copy.deepcopy(found)


def _launcher_errors(config: Json) -> list[str]:
    """What `ray up` refuses, and what EC2 would refuse only when a node is wanted."""
    prepared = prepare_config(copy.deepcopy(config))
    prepared.setdefault("cluster_synced_files", [])
    try:
        validate_config(prepared)
    except (ValueError, jsonschema.ValidationError) as error:
        return [str(error)]
    found = []
    for name, kind in config["available_node_types"].items():
        node, is_head = kind["node_config"], name == config["head_node_type"]
        known = {"InstanceType", "IamInstanceProfile", "BlockDeviceMappings", "InstanceMarketOptions"}
        found += [f"{name}: {key} is not known" for key in set(node) - known]
        spot = node.get("InstanceMarketOptions", {}).get("MarketType") == "spot"
        if "InstanceType" not in node or "IamInstanceProfile" not in node:
            found.append(f"{name}: a node needs its type and its role")
        if spot == is_head:
            found.append(f"{name}: the head stays and the workers are spot")
    return found


def test_the_launcher_s_file_is_what_ray_up_takes() -> None:
    assert _launcher_errors(_aws()) == []


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("max_worker", 3, "Additional properties"),
        ("available_node_types/training/min_worker", 1, "Additional properties"),
        ("available_node_types/training/resources", {"GPU": 0.5}, "is not of type 'integer'"),
        ("available_node_types/training/min_workers", 9, "max_workers"),
        ("head_node_type", "main", "must be one of"),
        ("available_node_types/training/node_config/InstanceTyp", "p5.48xlarge", "is not known"),
        ("available_node_types/training/node_config/InstanceMarketOptions", ..., "workers are spot"),
        (
            "available_node_types/head/node_config/InstanceMarketOptions",
            {"MarketType": "spot"},
            "the head stays",
        ),
    ],
)
def test_the_launcher_s_check_refuses_a_seeded_mistake(path: str, value: object, complaint: str) -> None:
    config = yaml.safe_load(yaml.dump(_aws(), Dumper=_PlainDumper))
    _change(path, value)(config)
    assert any(complaint in line for line in _launcher_errors(config)), _launcher_errors(config)


def test_the_launcher_installs_the_pinned_stack_and_asks_for_a_token() -> None:
    config = _aws()
    mounted = config["file_mounts"]
    sources = [source for source in mounted.values() if not source.startswith("~")]
    assert [source for source in sources if not (PROJECT / source).exists()] == []
    assert "/home/ray/.ray/auth_token" in mounted
    assert all("--constraint constraints.txt" in command for command in config["setup_commands"])
    assert any("boto3" in command for command in config["head_setup_commands"])
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        (start,) = [command for command in commands if "ray start" in command]
        assert "RAY_AUTH_MODE=token" in start
