"""The manifests start the drain watch as the command takes it, and leave it the time that it is told."""

import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from kuberay_rules import CLUSTER_KEYS, Json, environment_of

from asclepius_ray.cli import app

CLUSTER = Path(__file__).resolve().parents[2] / "cluster"
SPARE_SECONDS = 15


def _parse(arguments: list[str]) -> dict[str, Any]:
    """The command's options, read by the command line itself."""
    name, *options = arguments
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    return command.make_context(name, options).params


def _workers(kind: str) -> list[Json]:
    documents = yaml.safe_load_all((CLUSTER / f"{kind.lower()}.yaml").read_text())
    (manifest,) = [found for found in documents if found and found["kind"] == kind]
    return manifest["spec"][CLUSTER_KEYS[kind]]["workerGroupSpecs"]


@pytest.mark.parametrize("kind", CLUSTER_KEYS)
def test_every_worker_s_pod_is_drained_first_and_has_the_time_for_it(kind: str) -> None:
    groups = _workers(kind)
    assert groups
    for group in groups:
        pod = group["template"]["spec"]
        program, *arguments = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
        assert program == "asclepius"
        assert arguments[0] == "drain-watch"
        options = _parse(arguments)
        assert options["now"]
        # Kubernetes counts the hook into the grace period, and Ray drains for itself after it.
        ray_seconds = float(environment_of(group)["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
        needed = options["grace_seconds"] + ray_seconds + SPARE_SECONDS
        assert options["grace_seconds"] > 0
        assert needed <= pod["terminationGracePeriodSeconds"]


def test_every_worker_of_the_launcher_s_watches_for_aws_s_notices_and_outlives_the_set_up() -> None:
    config = yaml.safe_load((CLUSTER / "aws.yaml").read_text())
    (line,) = [found for found in config["worker_setup_commands"] if "drain-watch" in found]
    words = shlex.split(line)
    assert words[:4] == ["RAY_AUTH_MODE=token", "nohup", "bash", "-c"]
    assert words[-1] == "&"
    assert {">>", "2>&1", "<"} <= set(words)
    loop = shlex.split(words[4])
    start = loop.index("asclepius")
    arguments = loop[start + 1 : loop.index("done")]
    assert arguments[0] == "drain-watch"
    options = _parse([argument.rstrip(";") for argument in arguments])
    assert (options["provider"], options["now"], options["node"]) == ("aws", False, "")
    # The head stays, and is on a machine that AWS does not take away.
    assert not any(
        "drain-watch" in found for found in config["head_setup_commands"] + config["setup_commands"]
    )
