"""The pods of a rendered RayService, done here: their init containers' own commands, Ray's own variables."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from ray.util import get_node_ip_address

from asclepius_ray.config import parse_section
from asclepius_ray.launch.cluster.kuberay import RunFile
from asclepius_ray.launch.cluster.node_certificates import AUTHORITY_FOLDER, FOLDER
from asclepius_ray.launch.cluster.pod_proxy import VOLUME_FOLDER
from asclepius_ray.launch.cluster.profile import Profile, load_profile
from asclepius_ray.launch.cluster.rendering import render
from asclepius_ray.run import parse_run

PROJECT = Path(__file__).resolve().parents[2]


def rendered_service(run_text: str) -> dict[str, Any]:
    """The RayService of the project's own profile, with TLS between its nodes."""
    values = load_profile(str(PROJECT / "cluster" / "profiles" / "kubernetes.toml")).model_dump()
    profile = parse_section(Profile, values | {"tls": {}}, "the profile")
    file = RunFile(run_text, parse_run(run_text, "the run file"))
    documents = render(profile, "rayservice", file, "2.60.0")
    (service,) = [document for document in documents if document["kind"] == "RayService"]
    return service


def serve_configuration(service: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(service["spec"]["serveConfigV2"])
    return found


def pod_of(service: dict[str, Any]) -> dict[str, Any]:
    """That of the workers."""
    (group,) = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    found: dict[str, Any] = group["template"]["spec"]
    return found


def prepare(pod: dict[str, Any], place: Path, authority: Path) -> dict[str, str]:
    """Does what the pod's init containers do, for this machine's address; Ray's variables for such a pod.

    What they see in their volumes is below `place` here, and the secret with the authority is a folder.
    """
    here = {FOLDER: str(place / "tls"), VOLUME_FOLDER: str(place), AUTHORITY_FOLDER: str(authority)}
    address = get_node_ip_address()
    (place / "tls").mkdir(parents=True, exist_ok=True)
    for container in pod["initContainers"]:
        given = {variable["name"]: variable.get("value", address) for variable in container.get("env", [])}
        # The image's `python` is the one of the stack.
        environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        environment |= {name: _moved(value, here) for name, value in given.items()}
        command = [_moved(word, here) for word in container["command"]]
        subprocess.run(command, env=environment, cwd=place, check=True, capture_output=True)
    variables = {item["name"]: item["value"] for item in pod["containers"][0]["env"] if "value" in item}
    return {name: _moved(value, here) for name, value in variables.items()}


def make_authority(folder: Path) -> Path:
    """As the guide says to make one: `ca.crt` and `ca.key`."""
    folder.mkdir()
    command = [shutil.which("openssl") or "openssl", "req", "-x509", "-newkey", "ec"]
    command += [
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "3650",
        "-subj",
        "/CN=asclepius-ray",
    ]
    command += ["-keyout", str(folder / "ca.key"), "-out", str(folder / "ca.crt")]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def _moved(text: str, places: dict[str, str]) -> str:
    for there, here in places.items():
        if text == there or text.startswith(f"{there}/"):
            return here + text.removeprefix(there)
    return text
