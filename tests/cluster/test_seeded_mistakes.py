"""Every rule of `asclepius cluster validate` finds its mistake, and says where it is and what to do."""

from pathlib import Path

import pytest
from committed import (
    FILES,
    PROJECT,
    RUN_FILE,
    as_path,
    changed,
    document,
    documents_of,
    places_in,
    profile_of,
)
from further_seeds import FURTHER_SEEDS
from launcher_seeds import LAUNCHER_PARTS_SEEDS, WRITTEN_KEY_SEEDS
from network_seeds import NETWORK_SEEDS
from pod_seeds import ACCOUNT_SEEDS, POD_SEEDS, SECRET_SEEDS
from seeds import ENTRYPOINT, SEEDS, Seed
from service_seeds import SERVICE_SEEDS
from tls_seeds import TLS_SEEDS

from asclepius_ray.launch.cluster.profile import Profile
from asclepius_ray.launch.cluster.validation.findings import Finding
from asclepius_ray.launch.cluster.validation.manifests import Document
from asclepius_ray.launch.cluster.validation.started import RunText
from asclepius_ray.launch.cluster.validation.validating import RULES, SCHEMA, Knowledge, validate

ALL_SEEDS = [
    *SEEDS,
    *POD_SEEDS,
    *ACCOUNT_SEEDS,
    *SECRET_SEEDS,
    *FURTHER_SEEDS,
    *NETWORK_SEEDS,
    *TLS_SEEDS,
    *SERVICE_SEEDS,
    *LAUNCHER_PARTS_SEEDS,
    *WRITTEN_KEY_SEEDS,
]


def _name(seed: Seed) -> str:
    return f"{seed.rule}: {seed.file} {seed.path.rpartition('/')[2]}"


def _find(seed: Seed, crds: str = "") -> list[Finding]:
    within = seed.within or seed.file
    changes = [(seed.path, seed.value), *seed.also]
    documents = changed(documents_of(within), seed.file, seed.kind, changes)
    run = RunText((PROJECT / RUN_FILE).read_text(), RUN_FILE)
    return validate(documents, Knowledge(profile_of(within), run, crds)).findings


def _is_found_where_it_is(seed: Seed, findings: list[Finding]) -> None:
    found = [finding for finding in findings if finding.rule == seed.rule]
    places = [(finding.file, finding.path) for finding in found]
    assert (seed.file, as_path(seed.found_at or seed.path)) in places, [str(finding) for finding in findings]
    assert all(finding.said and finding.advice for finding in found)


@pytest.mark.parametrize("seed", [seed for seed in ALL_SEEDS if seed.rule != SCHEMA], ids=_name)
def test_a_rule_finds_its_mistake_and_says_where_it_is_and_what_to_do(seed: Seed) -> None:
    _is_found_where_it_is(seed, _find(seed))


@pytest.mark.parametrize("seed", [seed for seed in ALL_SEEDS if seed.rule == SCHEMA], ids=_name)
def test_kuberay_s_own_schemas_find_their_mistake_and_say_where_it_is(seed: Seed, shared_data: Path) -> None:
    _is_found_where_it_is(seed, _find(seed, str(shared_data / "kuberay-crds")))


def test_every_rule_has_a_mistake_and_there_are_more_than_forty() -> None:
    assert {seed.rule for seed in ALL_SEEDS} == set(RULES)
    assert len(ALL_SEEDS) > 40


SAME_AS_RAYJOB = ("queues/volcano.yaml", "queues/yunikorn.yaml")
"""But for labels, which Kueue's job has as well."""
WRONG = (None, 3, "text", [], {}, [3], {"a": 1}, True, [None], -1.5, ...)


@pytest.mark.parametrize("file", [file for file in FILES if file not in SAME_AS_RAYJOB])
def test_no_rule_falls_over_what_has_the_wrong_type_or_is_not_there(file: str) -> None:
    documents = [one for one in documents_of(file) if one.file == file]
    run = RunText((PROJECT / RUN_FILE).read_text(), RUN_FILE)
    knowledge, num_found = Knowledge(profile_of(file), run), 0
    for one in documents:
        for number, place in enumerate(places_in(one.value)):
            wrong = [(place, WRONG[number % len(WRONG)])]
            kind = f"{one.kind}/{one.name}" if one.name else one.kind
            num_found += bool(validate(changed(documents, file, kind, wrong), knowledge).findings)
    assert num_found >= len(documents)


def _egress(documents: list[Document], run: str) -> list[Finding]:
    """What is shut, where the run is given beside the files."""
    found = validate(documents, Knowledge(run=RunText(run, "the run file"))).findings
    return [finding for finding in found if finding.rule == "network-egress"]


def test_a_cluster_that_stays_lets_out_what_the_run_asks_that_is_given() -> None:
    documents, run = documents_of("raycluster.yaml"), (PROJECT / RUN_FILE).read_text()
    assert _egress(documents, run) == []
    shut = _egress(documents, run.replace("https://api.openai.com/v1", "http://teacher.models:9000/v1"))
    assert {"9000" in finding.said for finding in shut} == {True}
    assert len(shut) == 4


def test_an_autoscaling_head_that_cannot_ask_the_kubernetes_api_is_found() -> None:
    documents, run = documents_of("raycluster.yaml"), (PROJECT / RUN_FILE).read_text()
    closed = [("spec/egress/2/to", [{"ipBlock": {"cidr": "10.20.0.0/16"}}])]
    narrow = changed(documents, "raycluster.yaml", "NetworkPolicy/asclepius", closed)
    assert _egress(narrow, run) == []
    shut = changed(narrow, "raycluster.yaml", "NetworkPolicy/asclepius-head", [("spec/egress", [])])
    (finding,) = _egress(shut, run)
    assert "the Kubernetes API" in finding.said
    to_pods = [("spec/egress", [{"to": [{"podSelector": {}}]}])]
    assert _egress(changed(narrow, "raycluster.yaml", "NetworkPolicy/asclepius-head", to_pods), run)
    without = [("spec/enableInTreeAutoscaling", False)]
    assert _egress(changed(shut, "raycluster.yaml", "RayCluster", without), run) == []


CLIENT = {"podSelector": {"matchLabels": {"app": "client"}}}
SERVE = {"port": 8000}
WORLD = {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}}


@pytest.mark.parametrize(
    ("file", "policy", "place", "rule"),
    [
        ("rayjob.yaml", "asclepius-pipeline", "spec/egress", {"to": [WORLD]}),
        ("rayservice.yaml", "asclepius-model-serving", "spec/ingress", {"from": [CLIENT]}),
        ("rayservice.yaml", "asclepius-model-serving", "spec/ingress", {"from": [CLIENT], "ports": [SERVE]}),
    ],
    ids=["every address", "every port", "one port"],
)
def test_what_is_open_at_every_port_is_not_said_to_be_shut(
    file: str, policy: str, place: str, rule: dict[str, object]
) -> None:
    opened = changed(documents_of(file), file, f"NetworkPolicy/{policy}", [(place, [rule])])
    assert [str(finding) for finding in validate(opened, Knowledge()).findings] == []


SERVED = {"service": {"name": "asclepius-model-serve-svc", "port": {"name": "serve"}}}
PATHS = [{"path": "/", "pathType": "Prefix", "backend": SERVED}]


def _leads_to(port: int) -> dict[str, object]:
    return {"defaultBackend": {"service": {"name": "other", "port": {"number": port}}}}


CERTIFICATE = {"name": "model", "annotations": {"alb.ingress.kubernetes.io/certificate-arn": "arn:aws:acm:1"}}


@pytest.mark.parametrize(
    ("kind", "metadata", "spec"),
    [
        ("Ingress", CERTIFICATE, {"rules": [{"http": {"paths": PATHS}}]}),
        ("Ingress", {"name": "other"}, _leads_to(18265)),
        ("Ingress", {"name": "other"}, _leads_to(18000)),
        ("NetworkPolicy", {"name": "other"}, {"podSelector": {"matchLabels": {"app": "a"}}, "ingress": [{}]}),
        ("Service", {"name": "other"}, {"type": "NodePort", "ports": [{"port": 80, "targetPort": "client"}]}),
    ],
    ids=["certificate by annotation", "port 18265", "port 18000", "another's policy", "another's port"],
)
def test_a_door_that_is_closed_or_another_s_is_no_mistake(
    kind: str, metadata: dict[str, object], spec: dict[str, object]
) -> None:
    version = "v1" if kind == "Service" else "networking.k8s.io/v1"
    value = {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}
    documents = [*documents_of("rayservice.yaml"), Document("door.yaml", value)]
    found = validate(documents, Knowledge()).findings
    assert [str(finding) for finding in found if finding.file == "door.yaml"] == []


def test_ssh_may_be_open_to_the_world_and_any_port_to_a_named_address() -> None:
    ssh = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    office = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "192.0.2.0/24"}]}
    opened = [("provider/security_group", {"IpPermissions": [ssh, office]})]
    documents = changed(documents_of("aws.yaml"), "aws.yaml", "launcher", opened)
    assert validate(documents, Knowledge()).findings == []


def _run_file(text: str) -> Document:
    metadata, data = {"name": "a"}, {"run.toml": text}
    return Document("a.yaml", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})


@pytest.mark.parametrize(
    "written",
    [
        "sk-0123456789abcdef0123",
        '[teacher.headers]\nAuthorization = "0123456789abcdef0123"',
        "https://host/v1?api-key=0123456789abcdef0123",
        "Bearer 0123456789abcdef0123",
        '[teacher.extra_body]\napi_key = "0123456789abcdef0123"',
    ],
    ids=["key", "header", "query", "bearer", "setting"],
)
def test_a_key_that_is_found_is_not_repeated(written: str) -> None:
    (finding,) = validate([_run_file(written)], Knowledge()).findings
    assert finding.rule == "secrets-by-name"
    assert "0123456789abcdef0123" not in str(finding)


@pytest.mark.parametrize(
    "written",
    [
        "# A bearer token is asked for.\n[teacher]\nheaders = {}\n",
        "https://host/v1?api-version=2&max_tokens=300&key=$KEY",
        "s3://runs/a?endpoint_override=minio:9000&scheme=http",
        '[teacher]\napi_key_env = "OPENAI_API_KEY"\n[teacher.extra_body]\napi_key = "${OPENAI_API_KEY}"\n',
        '[serving]\ntls_key = "/etc/tls/tls.key"\nkeys = "/data/keys.json"\napi_key = ""\n',
        '[teacher.extra_body]\neos_token = "</s>"\nprompt_cache_key = "notes"\nmax_tokens = 300\ntoken = 2\n',
    ],
    ids=["words", "other parameters", "a bucket", "a key's name", "a key's file", "marks and hashes"],
)
def test_what_is_no_key_is_not_taken_for_one(written: str) -> None:
    assert validate([_run_file(written)], Knowledge()).findings == []


def test_a_training_that_needs_more_than_its_gpus_have_is_told_what_would_make_it_fit() -> None:
    profile = profile_of("rayjob.yaml")
    workers = {
        **profile.workers,
        "training": profile.workers["training"].model_copy(update={"gpu_memory_gib": 24}),
    }
    smaller: Profile = profile.model_copy(update={"workers": workers})
    report = validate(documents_of("rayjob.yaml"), Knowledge(smaller))
    (finding,) = report.findings
    assert finding.rule == "gpu-memory"
    assert "it would fit with training." in finding.advice


def test_what_cannot_be_looked_at_is_said() -> None:
    documents = documents_of("rayjob.yaml")
    unchecked = validate(documents, Knowledge()).unchecked
    assert any("--crds" in line for line in unchecked)
    assert any("--profile" in line for line in unchecked)
    entrypoint = f"{ENTRYPOINT} --set training.base_model=owner/unknown"
    changes = [("spec/entrypoint", entrypoint)]
    unknown = changed(documents, "rayjob.yaml", "RayJob", changes)
    lines = validate(unknown, Knowledge(profile_of("rayjob.yaml"))).unchecked
    assert any("the size of owner/unknown is not known here" in line for line in lines)
    run = RunText((PROJECT / RUN_FILE).read_text(), RUN_FILE)
    sizes = [("available_node_types/training/resources", {})]
    report = validate(changed(documents_of("aws.yaml"), "aws.yaml", "launcher", sizes), Knowledge(run=run))
    assert report.findings == []
    assert any("write the resources of training" in line for line in report.unchecked)
    cluster = validate(documents_of("raycluster.yaml"), Knowledge()).unchecked
    assert any("--run" in line for line in cluster)


def test_a_kind_without_rules_and_a_claim_of_no_file_are_said_to_be_unseen() -> None:
    documents = [one for one in documents_of("rayjob.yaml") if one.file == "rayjob.yaml"]
    monitor = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": {"name": "figures"},
    }
    unchecked = validate([*documents, Document("monitor.yaml", monitor)], Knowledge()).unchecked
    assert "PodMonitor figures in monitor.yaml: there are no rules for its kind" in unchecked
    claims = [line for line in unchecked if "claim" in line]
    assert claims == [
        "the claim asclepius-data that rayjob.yaml mounts: name the file that holds it",
    ]
    whole = validate(documents_of("rayjob.yaml"), Knowledge()).unchecked
    assert not [line for line in whole if "claim" in line or "no rules" in line]


def test_the_run_of_a_job_is_read_from_its_own_configmap() -> None:
    assert document("rayjob.yaml", "ConfigMap")["data"]["run.toml"]
    assert not [
        line for line in validate(documents_of("rayjob.yaml"), Knowledge()).unchecked if "--run" in line
    ]
