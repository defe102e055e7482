"""Who comes in to the pods of a rendered resource, and what goes out of them."""

from pathlib import Path
from typing import Any

import pytest

from asclepius_ray.config import parse_section
from asclepius_ray.launch.cluster.kuberay import RunFile
from asclepius_ray.launch.cluster.network_policies import NAMESPACE_LABEL, OPERATOR_LABELS
from asclepius_ray.launch.cluster.pods import labels_of
from asclepius_ray.launch.cluster.profile import Profile, Target, load_profile
from asclepius_ray.launch.cluster.rendering import render
from asclepius_ray.run import parse_run

PROFILES = Path(__file__).resolve().parents[3] / "cluster" / "profiles"
RUN = """
name = "small"
root = "runs/small"
[input]
path = "all.csv"
[teacher]
base_url = "http://teacher.models:9000/v1"
"""
BUCKET = {"bucket": {"uri": "s3://bucket/runs", "endpoint": "minio:9001", "endpoint_scheme": "http"}}
KEYS = {"required": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
STRANGER = {"app.kubernetes.io/part-of": "another"}
Policies = dict[str, dict[str, Any]]


def _policies(target: Target, **changes: object) -> Policies:
    values = load_profile(str(PROFILES / "kubernetes.toml")).model_dump()
    profile = parse_section(Profile, values | changes, "the profile")
    file = None if target == "raycluster" else RunFile(RUN, parse_run(RUN, "the run file"))
    documents = render(profile, target, file, "2.60.0")
    return {
        document["metadata"]["name"]: document["spec"]
        for document in documents
        if document["kind"] == "NetworkPolicy"
    }


def _selecting(policies: Policies, labels: dict[str, str]) -> list[dict[str, Any]]:
    return [
        spec for spec in policies.values() if spec["podSelector"]["matchLabels"].items() <= labels.items()
    ]


def _comes_in(
    policies: Policies, to: dict[str, str], port: int, labels: dict[str, str], namespace: str = ""
) -> bool:
    """Whether a pod is let in: with `namespace` one of that namespace, else of the resource's own."""
    for spec in _selecting(policies, to):
        for rule in spec["ingress"]:
            ports = [named["port"] for named in rule.get("ports", [{"port": port}])]
            if port in ports and any(_names(peer, labels, namespace) for peer in rule["from"]):
                return True
    return False


def _names(peer: dict[str, Any], labels: dict[str, str], namespace: str) -> bool:
    if "namespaceSelector" in peer:
        wanted = peer["namespaceSelector"].get("matchLabels", {})
        is_there = wanted in ({}, {NAMESPACE_LABEL: namespace})
    else:
        is_there = not namespace
    pods = peer.get("podSelector", {}).get("matchLabels", {})
    return is_there and pods.items() <= labels.items()


def _ports_out(policies: Policies, labels: dict[str, str]) -> dict[int, list[Any]]:
    """The ports that are open outwards, and to what; those of the resource's own pods left out."""
    return {
        named["port"]: rule["to"]
        for spec in _selecting(policies, labels)
        for rule in spec.get("egress", [])
        for named in rule.get("ports", [])
    }


@pytest.mark.parametrize("target", ["raycluster", "rayjob", "rayservice"])
def test_pods_of_one_resource_reach_each_other_and_a_stranger_reaches_none(target: Target) -> None:
    policies = _policies(target)
    resource = min(policies, key=len)
    head, worker = labels_of(resource, "head"), labels_of(resource, "worker")
    for to in (head, worker):
        closed = [side for spec in _selecting(policies, to) for side in spec["policyTypes"]]
        assert {"Ingress", "Egress"} <= set(closed)
        for port in (6379, 8265, 10001, 30000):
            assert _comes_in(policies, to, port, head)
            assert _comes_in(policies, to, port, worker)
            assert not _comes_in(policies, to, port, STRANGER)
            assert not _comes_in(policies, to, port, STRANGER, "default")


def test_the_dashboard_is_for_the_operator_s_pods_in_its_namespace_alone() -> None:
    policies = _policies("rayjob", network={"operator_namespaces": ("operators",)})
    head, worker = (labels_of("asclepius-pipeline", component) for component in ("head", "worker"))
    assert _comes_in(policies, head, 8265, OPERATOR_LABELS, "operators")
    assert not _comes_in(policies, head, 8265, STRANGER, "operators")
    assert not _comes_in(policies, head, 8265, OPERATOR_LABELS)
    assert not _comes_in(policies, head, 6379, OPERATOR_LABELS, "operators")
    assert not _comes_in(policies, worker, 8265, OPERATOR_LABELS, "operators")


def test_figures_are_read_from_the_named_namespaces_alone() -> None:
    worker = labels_of("asclepius-pipeline", "worker")
    assert _comes_in(_policies("rayjob"), worker, 8080, STRANGER, "monitoring")
    assert not _comes_in(_policies("rayjob"), worker, 8080, STRANGER, "other")
    nobody = _policies("rayjob", network={"monitoring_namespaces": ()})
    assert not _comes_in(nobody, worker, 8080, STRANGER, "monitoring")


def test_the_model_is_asked_from_its_own_namespace_unless_others_are_named() -> None:
    worker, head = (labels_of("asclepius-model", component) for component in ("worker", "head"))
    here = _policies("rayservice")
    assert _comes_in(here, worker, 8000, STRANGER)
    assert not _comes_in(here, worker, 8000, STRANGER, "ingress")
    assert not _comes_in(here, head, 8000, STRANGER)
    labels = {"app": "gateway"}
    there = _policies("rayservice", network={"serve_namespaces": ("ingress",), "serve_pods": labels})
    assert _comes_in(there, worker, 8000, labels, "ingress")
    assert not _comes_in(there, worker, 8000, STRANGER, "ingress")
    assert not _comes_in(there, worker, 8000, STRANGER)


def test_what_goes_out_are_names_https_the_store_and_the_run_s_endpoints() -> None:
    policies = _policies("rayjob", storage=BUCKET, secrets=KEYS, network={"ports": (5000,)})
    worker = labels_of("asclepius-pipeline", "worker")
    # 443: the hub; 9000: the teacher; 9001: the store.
    assert set(_ports_out(policies, worker)) == {53, 443, 5000, 9000, 9001}
    assert 6443 in _ports_out(policies, labels_of("asclepius-pipeline", "head"))
    assert set(_ports_out(_policies("raycluster"), labels_of("asclepius", "worker"))) == {53, 443}
    for peer in _ports_out(policies, worker)[443]:
        block = peer.get("ipBlock", {})
        assert block.get("cidr") != "0.0.0.0/0" or block["except"] == ["169.254.0.0/16"]


def test_a_closed_network_is_left_for_the_named_addresses_alone() -> None:
    network = {"outside": ("10.20.0.0/16",), "api_server": ("10.0.0.1/32",)}
    policies = _policies("rayjob", network=network)
    out = _ports_out(policies, labels_of("asclepius-pipeline", "head"))
    blocks = {
        port: {peer["ipBlock"]["cidr"] for peer in peers if "ipBlock" in peer} for port, peers in out.items()
    }
    assert blocks[9000] == {"10.20.0.0/16"}
    assert blocks[6443] == {"10.0.0.1/32"}
    worker = _ports_out(policies, labels_of("asclepius-pipeline", "worker"))
    assert {peer["ipBlock"]["cidr"] for peer in worker[443] if "ipBlock" in peer} == {"10.20.0.0/16"}


@pytest.mark.parametrize(
    ("uri", "server"), [("s3://b/runs", "169.254.170.23/32"), ("gs://b/runs", "169.254.169.254/32")]
)
def test_a_cloud_s_server_of_keys_is_asked_only_where_pods_have_a_role_for_a_bucket(
    uri: str, server: str
) -> None:
    worker = labels_of("asclepius-pipeline", "worker")
    bucket = {"storage": {"bucket": {"uri": uri}}}
    by_keys = _policies("rayjob", storage={"bucket": {"uri": "s3://b/runs"}}, secrets=KEYS)
    assert 80 not in _ports_out(by_keys, worker)
    with_role = _policies("rayjob", cloud={"kind": "kubernetes", "role": "reader"}, **bucket)
    assert _ports_out(with_role, worker)[80] == [{"ipBlock": {"cidr": server}}]
