"""A RayService as it is rendered, without Kubernetes: TLS and tokens between its nodes, HAProxy, its Serve
configuration. What KubeRay does to pods is done here by the pods' own commands."""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
import pytest
import yaml
from local_heads import Head, free_port, started_head, started_node
from ray.core.generated import autoscaler_pb2, autoscaler_pb2_grpc
from reciting_model import save_reciting_model
from rendered_pods import make_authority, pod_of, prepare, rendered_service, serve_configuration

pytestmark = pytest.mark.long

BIN = Path(sys.executable).parent
API_KEY = "a-key-for-this-drill-0123456789abcdef"
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a-token-made-for-this-drill"}
RUN = 'name = "tiny"\nroot = "runs/tiny"\n[serving]\nreplicas = [1, 2]\nmax_new_tokens = 8\n'
PATIENCE_SECONDS = 150.0
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "chest pain"}], "max_tokens": 4}
WORDS = (" The", " wound", " heals.")
TASKS = """
import json, ray
ray.init(address=%r, log_to_driver=False, logging_level="ERROR")
@ray.remote(num_cpus=1, scheduling_strategy="SPREAD")
def node():
    import time; time.sleep(0.3)
    return ray.get_runtime_context().get_node_id()
print(json.dumps(sorted(set(ray.get([node.remote() for _ in range(8)])))))
"""


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """Short: sockets are in it."""
    folder = Path(tempfile.mkdtemp(prefix="ar-", dir="/tmp"))
    yield folder
    # In a pod they would end with it; here one that took over from another is nobody's child.
    for process in psutil.process_iter(["name", "cmdline"]):
        if process.info["name"] == "haproxy" and f"{folder}/" in " ".join(process.info["cmdline"] or ()):
            process.kill()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def service() -> dict[str, Any]:
    return rendered_service(RUN)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_authority(tmp_path_factory.mktemp("authority") / "of-the-cluster")


@pytest.fixture(scope="module")
def head(
    service: dict[str, Any], authority: Path, place: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Head]:
    variables = prepare(pod_of(service), place / "head", authority)
    variables |= {**TOKEN, "ASCLEPIUS_API_KEY": API_KEY}
    # In a pod of its own it is nobody else's.
    variables["RAY_SERVE_FALLBACK_PROXY_HTTP_PORT"] = str(free_port())
    with started_head(variables, tmp_path_factory.mktemp("head"), num_workers=0) as head:
        yield head


def _nodes_that_work(head: Head, environment: dict[str, str]) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", TASKS % head.gcs], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


def _joining(head: Head, variables: dict[str, str]) -> dict[str, str]:
    """The environment of another node."""
    return head.environment | variables


def test_nodes_with_certificates_of_one_authority_work_together_and_a_stranger_cannot_join(
    head: Head, service: dict[str, Any], authority: Path, place: Path, tmp_path: Path
) -> None:
    second = _joining(head, prepare(pod_of(service), place / "second", authority))
    assert second["RAY_TLS_SERVER_CERT"] != head.environment["RAY_TLS_SERVER_CERT"]
    strangers = make_authority(tmp_path / "of-strangers")
    stranger = _joining(head, prepare(pod_of(service), place / "stranger", strangers))
    plain = head.environment | {"RAY_USE_TLS": "0"}
    address = [f"--address={head.gcs}"]
    with (
        started_node(address, second, tmp_path / "second.log"),
        started_node(address, stranger, tmp_path / "stranger.log"),
        started_node(address, plain, tmp_path / "plain.log"),
    ):
        give_up = time.monotonic() + PATIENCE_SECONDS
        while len(seen := _nodes_that_work(head, head.environment)) < 2:
            assert time.monotonic() < give_up, (tmp_path / "second.log").read_text()
        # Ray goes on trying; each time it is turned away.
        for log in (tmp_path / "stranger.log", tmp_path / "plain.log"):
            while "Failed to connect to GCS" not in log.read_text():
                assert time.monotonic() < give_up, log.read_text()
                time.sleep(0.5)
        assert _nodes_that_work(head, head.environment) == seen


def _state_error(channel: grpc.Channel) -> grpc.StatusCode:
    request = autoscaler_pb2.GetClusterResourceStateRequest()
    with pytest.raises(grpc.RpcError) as caught:
        autoscaler_pb2_grpc.AutoscalerStateServiceStub(channel).GetClusterResourceState(request, timeout=10)
    code: grpc.StatusCode = caught.value.code()
    return code


def _channel(head: Head, trusted: bytes, variables: dict[str, str]) -> grpc.Channel:
    """One that shows the node's certificate, if these are the variables of one."""
    names = ("RAY_TLS_SERVER_KEY", "RAY_TLS_SERVER_CERT")
    own = [Path(variables[name]).read_bytes() for name in names if name in variables]
    return grpc.secure_channel(head.gcs, grpc.ssl_channel_credentials(trusted, *own))


def test_the_head_answers_nobody_without_its_authority_s_certificate_and_nobody_without_the_token(
    head: Head, service: dict[str, Any], authority: Path, place: Path, tmp_path: Path
) -> None:
    trusted = (authority / "ca.crt").read_bytes()
    strangers = make_authority(tmp_path / "of-strangers")
    stranger = prepare(pod_of(service), place / "other", strangers)
    with grpc.insecure_channel(head.gcs) as channel:
        assert _state_error(channel) is grpc.StatusCode.UNAVAILABLE
    for variables in ({}, stranger):
        with _channel(head, trusted, variables) as channel:
            assert _state_error(channel) is grpc.StatusCode.UNAVAILABLE
    with _channel(head, trusted, head.environment) as channel:
        assert _state_error(channel) is grpc.StatusCode.UNAUTHENTICATED
    assert httpx.get(f"{head.address}/api/jobs/").status_code == 401


def _deploy(head: Head, configuration: dict[str, Any], file: Path) -> None:
    file.write_text(yaml.safe_dump(configuration))
    command = [str(BIN / "serve"), "deploy", str(file), "--address", head.address]
    done = subprocess.run(command, env=head.environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def _application(head: Head) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {TOKEN['RAY_AUTH_TOKEN']}"}
    answer = httpx.get(f"{head.address}/api/serve/applications/", headers=headers, timeout=20)
    found: dict[str, Any] = answer.raise_for_status().json()["applications"].get("asclepius", {})
    return found


def test_the_rendered_application_is_deployed_behind_haproxy_and_answers_to_a_key_alone(
    head: Head, service: dict[str, Any], place: Path, tmp_path: Path
) -> None:
    configuration = serve_configuration(service)
    port = free_port()
    configuration["http_options"]["port"] = port
    arguments = configuration["applications"][0]["args"]
    arguments["model"] = str(save_reciting_model(tmp_path / "model", WORDS, 2048))
    arguments["serving"]["keys"] = str(tmp_path / "keys.json")
    _deploy(head, configuration, tmp_path / "serve.yaml")
    give_up = time.monotonic() + 2 * PATIENCE_SECONDS
    while (found := _application(head)).get("status") != "RUNNING":
        assert found.get("status") != "DEPLOY_FAILED", found
        assert time.monotonic() < give_up, found
        time.sleep(0.5)
    base = f"http://127.0.0.1:{port}"
    while httpx.get(f"{base}/-/healthz").status_code != 200:
        assert time.monotonic() < give_up
        time.sleep(0.2)
    answer = httpx.post(
        f"{base}/v1/chat/completions", json=CHAT, headers={"Authorization": f"Bearer {API_KEY}"}, timeout=60
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"] == "".join(WORDS)
    refused = httpx.post(f"{base}/v1/chat/completions", json=CHAT, timeout=60)
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
    # Ours, not Serve's own proxy and not Ray's HAProxy as it comes: it names no application to anybody.
    assert httpx.get(f"{base}/-/routes").json()["error"]["code"] == "not_found"
    (running,) = (place / "head" / "serve").rglob("haproxy.cfg")
    assert "backend asclepius_guard" in running.read_text()
    (deployment,) = found["deployments"].values()
    scaling = deployment["deployment_config"]["autoscaling_config"]
    assert (scaling["min_replicas"], scaling["max_replicas"]) == (1, 2)
