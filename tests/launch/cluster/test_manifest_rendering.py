"""What a profile is rendered to."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from asclepius_ray.config import parse_section
from asclepius_ray.errors import ConfigError
from asclepius_ray.launch.cluster.kuberay import RunFile
from asclepius_ray.launch.cluster.profile import (
    KUBERNETES_TARGETS,
    SAVE_SECONDS,
    SPARE_SECONDS,
    Profile,
    Target,
    load_profile,
)
from asclepius_ray.launch.cluster.rendering import TARGETS_WITH_RUN, render, render_file, tell_where_runs_live
from asclepius_ray.launch.cluster.validation.manifests import Document
from asclepius_ray.launch.cluster.validation.started import RunText
from asclepius_ray.launch.cluster.validation.validating import Knowledge, validate
from asclepius_ray.run import parse_run
from asclepius_ray.serving.application_settings import ApplicationSettings
from asclepius_ray.serving.config import ServingConfig

PROFILES = Path(__file__).resolve().parents[3] / "cluster" / "profiles"
RUN = """
name = "small"
root = "runs/small"
[input]
path = "reports/all.csv"
[teacher]
base_url = "https://teacher.example/v1"
[serving]
use_gpu = true
replicas = [1, 2]
max_concurrent_requests = 64
"""
VERSION = "2.60.0"


def _profile(**changes: object) -> Profile:
    values = load_profile(str(PROFILES / "kubernetes.toml")).model_dump()
    return parse_section(Profile, values | changes, "the profile")


def _run(more: str = "") -> RunFile:
    text = RUN + more
    return RunFile(text, parse_run(text, "the run file"))


def _render(profile: Profile, target: Target, more: str = "") -> dict[str, dict[str, Any]]:
    file = _run(more) if target in ("rayjob", "rayservice") else None
    return {document.get("kind", target): document for document in render(profile, target, file, VERSION)}


KEYS = ("OPENAI_API_KEY", "ASCLEPIUS_API_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
IN_BUCKET: dict[str, object] = {
    "storage": {"bucket": {"uri": "s3://bucket/runs", "endpoint": "minio:9000", "endpoint_scheme": "http"}},
    "secrets": {"required": KEYS, "optional": ("HF_TOKEN",)},
}


@pytest.mark.parametrize("target", KUBERNETES_TARGETS)
def test_the_same_profile_and_run_give_the_same_bytes(target: Target) -> None:
    texts = {render_file(list(_render(_profile(), target).values()), "a command") for _ in range(2)}
    assert len(texts) == 1


def test_the_run_file_travels_byte_for_byte_and_its_places_move_to_the_volume() -> None:
    documents = _render(_profile(), "rayjob")
    assert documents["ConfigMap"]["data"]["run.toml"] == RUN
    assert documents["RayJob"]["spec"]["entrypoint"] == (
        "python /opt/asclepius-ray/jobs/pipeline.py /etc/asclepius/run.toml "
        "--set root=/data/small --set input.path=/data/all.csv"
    )


def test_with_a_bucket_nothing_is_mounted_and_places_name_the_store_s_endpoint() -> None:
    documents = _render(_profile(**IN_BUCKET), "rayjob")
    entrypoint = documents["RayJob"]["spec"]["entrypoint"]
    assert "root=s3://bucket/runs/small?scheme=http&endpoint_override=minio:9000" in entrypoint
    assert "input.path=s3://bucket/runs/all.csv?scheme=http&endpoint_override=minio:9000" in entrypoint
    pod = documents["RayJob"]["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]
    assert [volume["name"] for volume in pod["volumes"]] == ["run-file"]
    assert {"name": "AWS_EC2_METADATA_DISABLED", "value": "true"} in pod["containers"][0]["env"]


def test_what_a_run_names_absolutely_or_in_a_bucket_stays() -> None:
    text = RUN.replace("runs/small", "gs://mine/small").replace("reports/all.csv", "/data/in/all.csv")
    file = RunFile(text, parse_run(text, "the run file"))
    documents = render(_profile(), "rayjob", file, VERSION)
    assert documents[-1]["spec"]["entrypoint"].endswith("/etc/asclepius/run.toml")


def test_the_service_serves_the_run_s_model_with_the_settings_that_differ() -> None:
    service = _render(_profile(), "rayservice")["RayService"]
    (application,) = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    assert application["args"] == {
        "name": "small",
        "model": "/data/small/model",
        "serving": {
            "use_gpu": True,
            "replicas": [1, 2],
            "max_concurrent_requests": 64,
            "keys": "/data/small/keys.json",
        },
    }


def test_a_run_file_may_name_the_doors_that_a_service_has() -> None:
    doors = 'host = "0.0.0.0"\nport = 8000\nproxy = "haproxy"\n'
    assert _render(_profile(), "rayservice", doors) == _render(_profile(), "rayservice")


def test_a_model_trained_anew_at_its_place_replaces_the_replicas_and_not_the_cluster() -> None:
    first, second = (
        {one["kind"]: one for one in render(_profile(), "rayservice", _run(), VERSION, revision)}[
            "RayService"
        ]
        for revision in ("", "2 epochs")
    )
    (application,) = yaml.safe_load(second["spec"].pop("serveConfigV2"))["applications"]
    assert ApplicationSettings.model_validate(application["args"]).revision == "2 epochs"
    (before,) = yaml.safe_load(first["spec"].pop("serveConfigV2"))["applications"]
    assert application != before
    # A cluster whose pods are the same goes on.
    assert first == second


def test_a_service_s_keys_and_audit_lines_are_looked_for_in_the_storage() -> None:
    more = 'keys = "secret/keys.json"\naudit = "audit"\n'
    service = _render(_profile(), "rayservice", more)["RayService"]
    (application,) = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    assert application["args"]["serving"]["keys"] == "/data/keys.json"
    assert application["args"]["serving"]["audit"] == "/data/audit"
    with pytest.raises(ConfigError, match=r"serving\.audit = 'audit' would be moved into the bucket"):
        _render(_profile(**IN_BUCKET), "rayservice", more)


def test_folders_of_models_beside_the_run_file_are_looked_for_in_the_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "second").mkdir(parents=True)
    text = RUN + 'model = "owner/base"\n[serving.models]\ntwo = "models/second"\n'
    file = RunFile(text, parse_run(text, "the run file"))
    (*_, service) = render(_profile(), "rayservice", file, VERSION)
    (application,) = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    assert application["args"]["model"] == "owner/base"
    assert application["args"]["serving"]["models"] == {"two": "/data/second"}


def test_a_service_holds_no_key_of_the_teacher() -> None:
    cluster = _render(_profile(), "rayservice")["RayService"]["spec"]["rayClusterConfig"]
    container = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]
    names = {variable["name"] for variable in container["env"]}
    assert "ASCLEPIUS_API_KEY" in names
    assert "OPENAI_API_KEY" not in names


QUEUES: dict[str, dict[str, str]] = {
    "kueue": {"kueue.x-k8s.io/queue-name": "team"},
    "volcano": {"volcano.sh/queue-name": "team", "ray.io/priority-class-name": "high"},
    "yunikorn": {
        "yunikorn.apache.org/app-id": "asclepius-pipeline",
        "yunikorn.apache.org/queue": "team",
    },
}


@pytest.mark.parametrize("system", QUEUES)
def test_a_queue_labels_the_job_and_the_manifest_stays_valid(system: str, shared_data: Path) -> None:
    queue = {"system": system, "name": "team"} | ({"priority_class": "high"} if system == "volcano" else {})
    documents = _render(_profile(queue=queue), "rayjob")
    assert documents["RayJob"]["metadata"]["labels"] == QUEUES[system]
    found = validate(
        [
            Document("rayjob.yaml", document)
            for document in render(_profile(queue=queue), "rayjob", _run(), VERSION)
        ],
        Knowledge(crds=str(shared_data / "kuberay-crds")),
    )
    assert found.findings == []


TEACHER = {"cpus": 16, "memory_gib": 128, "gpus": 2, "gpu_memory_gib": 80, "most": 2}


@pytest.mark.parametrize(
    "changes",
    [
        IN_BUCKET,
        {"cloud": {"kind": "kubernetes", "spot_labels": {"cloud.google.com/gke-spot": "true"}, "role": "us"}},
        {"image": {"name": "r.example.com/a@sha256:0123", "pull_secrets": ["r"]}, "name": "ward-7"},
        {
            "workers": {
                **load_profile(str(PROFILES / "kubernetes.toml")).model_dump()["workers"],
                "teacher": TEACHER,
            }
        },
        {"shutdown": {"drain_seconds": 30, "grace_seconds": 110}, "job": {"name": "train", "retries": 0}},
        {"tls": {}},
        {
            "network": {
                "outside": ("10.1.0.0/16",),
                "api_server": ("10.0.0.1/32",),
                "serve_namespaces": ("a",),
            }
        },
    ],
    ids=["bucket", "spot", "image", "teacher", "times", "tls", "closed network"],
)
def test_whatever_a_profile_says_its_files_break_no_rule(
    changes: dict[str, object], shared_data: Path
) -> None:
    profile = _profile(**changes)
    targets = [target for target in KUBERNETES_TARGETS if target != "storage" or profile.storage.volume]
    documents = [
        Document(target, document)
        for target in targets
        for document in render(profile, target, _run() if target in TARGETS_WITH_RUN else None, VERSION)
    ]
    assert len(documents) >= 7
    knowledge = Knowledge(profile, RunText(RUN, "the run file"), str(shared_data / "kuberay-crds"))
    assert [str(finding) for finding in validate(documents, knowledge).findings] == []


def test_kueue_counts_every_worker_and_no_autoscaler_changes_their_number() -> None:
    queue = {"system": "kueue", "name": "team"}
    cluster = _render(_profile(queue=queue), "rayjob")["RayJob"]["spec"]["rayClusterSpec"]
    assert cluster["enableInTreeAutoscaling"] is False
    assert "autoscalerOptions" not in cluster
    counted = ("replicas", "minReplicas", "maxReplicas")
    numbers = [tuple(group[name] for name in counted) for group in cluster["workerGroupSpecs"]]
    assert numbers == [(4, 4, 4), (1, 1, 1)]


def test_yunikorn_makes_a_gang_where_each_group_starts_with_a_worker() -> None:
    queue = {"system": "yunikorn", "name": "root.team"}
    workers = {"training": {**_profile().workers["training"].model_dump(), "fewest": 1}}
    job = _render(_profile(queue=queue, workers=workers), "rayjob")["RayJob"]
    assert job["metadata"]["labels"]["ray.io/gang-scheduling-enabled"] == "true"
    assert job["spec"]["rayClusterSpec"]["enableInTreeAutoscaling"] is True


def test_a_cluster_goes_after_success_and_after_every_failure_also_at_a_deadline() -> None:
    job = {"keep_finished_seconds": 60, "keep_failed_seconds": 7200}
    spec = _render(_profile(job=job), "rayjob")["RayJob"]["spec"]
    rules = spec["deletionStrategy"]["deletionRules"]
    # The operator sets no other status where a deadline has passed or no node came.
    assert [rule["condition"] for rule in rules] == [
        {"jobStatus": "SUCCEEDED", "ttlSeconds": 60},
        {"jobDeploymentStatus": "Failed", "ttlSeconds": 7200},
    ]
    assert {rule["policy"] for rule in rules} == {"DeleteCluster"}


def test_a_job_that_kueue_suspends_has_no_rules_of_deletion_and_its_nodes_go_as_after_success() -> None:
    profile = _profile(queue={"system": "kueue", "name": "team"}, job={"keep_finished_seconds": 60})
    spec = _render(profile, "rayjob")["RayJob"]["spec"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["ttlSecondsAfterFinished"] == 60
    assert "deletionStrategy" not in spec


def test_spot_workers_go_to_spot_nodes_and_the_head_and_steady_workers_do_not() -> None:
    labels = {"cloud.google.com/gke-spot": "true"}
    cloud = {"kind": "kubernetes", "spot_labels": labels}
    cluster = _render(_profile(cloud=cloud), "raycluster")["RayCluster"]["spec"]
    by_name = {group["groupName"]: group["template"]["spec"] for group in cluster["workerGroupSpecs"]}
    assert by_name["training"]["nodeSelector"] == labels
    assert by_name["training"]["tolerations"][0]["key"] == "cloud.google.com/gke-spot"
    assert "affinity" not in by_name["training"]
    other = {"key": "cloud.google.com/gke-spot", "operator": "NotIn", "values": ["true"]}
    for pod in (by_name["serving"], cluster["headGroupSpec"]["template"]["spec"]):
        assert "nodeSelector" not in pod
        # A spot node may carry the label without the taint.
        (required,) = pod["affinity"]["nodeAffinity"].values()
        assert required == {"nodeSelectorTerms": [{"matchExpressions": [other]}]}


def test_without_labels_of_spot_nodes_a_pod_goes_anywhere() -> None:
    cluster = _render(_profile(), "raycluster")["RayCluster"]["spec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert "affinity" not in group["template"]["spec"]


def test_a_driver_that_is_told_to_stop_may_end_its_answers_and_save() -> None:
    needed = ServingConfig().drain_seconds + SAVE_SECONDS + SPARE_SECONDS
    head = _render(_profile(), "raycluster")["RayCluster"]["spec"]["headGroupSpec"]
    variables = head["template"]["spec"]["containers"][0]["env"]
    (said,) = [found["value"] for found in variables if found["name"] == "RAY_JOB_STOP_WAIT_TIME_S"]
    launcher = _render(load_profile(str(PROFILES / "aws.toml")), "aws")["aws"]
    (start,) = [found for found in launcher["head_start_ray_commands"] if "ray start" in found]
    (told,) = re.findall(r"RAY_JOB_STOP_WAIT_TIME_S=(\d+)", start)
    assert min(int(said), int(told)) > needed


def test_the_profile_s_secrets_role_and_token_are_named_and_nothing_else() -> None:
    profile = _profile(
        cloud={"kind": "kubernetes", "role": "bucket-reader"},
        image={"name": "registry.example.com/ours:1", "pull_secrets": ["registry"]},
        authentication={"secret": "ray-token"},
    )
    cluster = _render(profile, "rayjob")["RayJob"]["spec"]["rayClusterSpec"]
    pod = cluster["headGroupSpec"]["template"]["spec"]
    assert cluster["authOptions"] == {"mode": "token", "secretName": "ray-token"}
    assert pod["serviceAccountName"] == "bucket-reader"
    assert pod["imagePullSecrets"] == [{"name": "registry"}]


def test_an_overlay_adds_what_the_profile_has_no_field_for() -> None:
    groups = "{workerGroupSpecs: [{groupName: training, priority: 5}]}"
    overlay = f"{{kind: RayJob, spec: {{rayClusterSpec: {groups}}}}}"
    spec = _render(_profile(overlay={"rayjob": overlay}), "rayjob")["RayJob"]["spec"]["rayClusterSpec"]
    assert {group["groupName"]: group.get("priority") for group in spec["workerGroupSpecs"]} == {
        "synthesis": None,
        "training": 5,
    }


@pytest.mark.parametrize("cloud", ["aws", "gcp"])
def test_the_key_of_the_bucket_encrypts_the_nodes_disks(cloud: Target) -> None:
    values = copy.deepcopy(load_profile(str(PROFILES / f"{cloud}.toml")).model_dump())
    values["storage"]["bucket"]["kms_key"] = "the-key"
    launcher = _render(parse_section(Profile, values, "the profile"), cloud)[cloud]
    for kind in launcher["available_node_types"].values():
        assert "the-key" in str(kind["node_config"])


def test_a_launcher_s_file_says_how_a_job_is_told_the_bucket() -> None:
    profile = load_profile(str(PROFILES / "aws.toml"))
    text = render_file(render(profile, "aws", None, VERSION), "a command", tell_where_runs_live(profile))
    assert "--set 'root=s3://BUCKET/asclepius/NAME'" in text.splitlines()[1]


@pytest.mark.parametrize(
    ("profile", "target", "run", "complaint"),
    [
        ("kubernetes", "aws", None, 'needs cloud.kind = "aws"'),
        ("aws", "rayjob", RUN, 'needs cloud.kind = "kubernetes"'),
        ("kubernetes", "rayjob", None, "needs the run that it is for: --run"),
        ("kubernetes", "raycluster", RUN, "leave --run out"),
        ("kubernetes", "rayjob", RUN + "[judge]\nheaders = {x-key = 'secret'}", "judge.headers"),
        ("kubernetes", "rayservice", RUN.replace("[1, 2]", "[0, 2]"), "set the fewest to 1"),
        ("kubernetes", "rayservice", RUN + "host = '127.0.0.1'", "serving.host is '127.0.0.1'"),
        ("kubernetes", "rayservice", RUN + "port = 9000", "serving.port is 9000, and a RayService has 8000"),
        ("kubernetes", "rayservice", RUN + "proxy = 'serve'", "serving.proxy is 'serve'"),
        ("kubernetes", "rayservice", RUN + "tls_certificate = 'a.pem'\ntls_key = 'b.pem'", "end TLS at"),
    ],
)
def test_what_cannot_be_rendered_is_refused(
    profile: str, target: Target, run: str | None, complaint: str
) -> None:
    file = RunFile(run, parse_run(run, "the run file")) if run else None
    with pytest.raises(ConfigError) as caught:
        render(load_profile(str(PROFILES / f"{profile}.toml")), target, file, VERSION)
    assert complaint in str(caught.value)


def test_a_bucket_has_no_claim_and_a_profile_without_servers_no_service() -> None:
    with pytest.raises(ConfigError, match="keeps its runs in a bucket"):
        _render(_profile(**IN_BUCKET), "storage")
    workers = {"training": _profile().workers["training"].model_dump()}
    with pytest.raises(ConfigError, match=r"add one of \[workers\.serving\]"):
        _render(_profile(workers=workers), "rayservice")
