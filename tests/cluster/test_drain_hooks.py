"""The committed files start the drain watch as the command takes it, and leave it its time."""

import shlex
from typing import Any

import pytest
import typer
from committed import KINDS, document, documents_of

from asclepius_ray.cli import app

SPARE_SECONDS = 15


def parsed(arguments: list[str]) -> dict[str, Any]:
    """The command's options, read by the command line itself."""
    name, *options = arguments
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    return command.make_context(name, options).params


def pods_of(found: Any) -> list[dict[str, Any]]:
    """Every pod's specification below a document."""
    if isinstance(found, dict):
        own = [found] if "terminationGracePeriodSeconds" in found and "containers" in found else []
        return own + [pod for value in found.values() for pod in pods_of(value)]
    return [pod for value in found for pod in pods_of(value)] if isinstance(found, list) else []


@pytest.mark.parametrize("file", KINDS)
def test_every_worker_s_pod_is_drained_first_and_has_the_time_for_it(file: str) -> None:
    pods = [
        pod for pod in pods_of(document(file, KINDS[file])) if pod["containers"][0]["name"] == "ray-worker"
    ]
    assert pods
    for pod in pods:
        container = pod["containers"][0]
        program, *arguments = container["lifecycle"]["preStop"]["exec"]["command"]
        assert program == "asclepius"
        options = parsed(arguments)
        assert options["now"]
        # Kubernetes counts the hook into the grace period, and Ray drains for itself after it.
        (ray_seconds,) = [
            float(variable["value"])
            for variable in container["env"]
            if variable["name"] == "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
        ]
        assert options["grace_seconds"] > 0
        needed = options["grace_seconds"] + ray_seconds + SPARE_SECONDS
        assert needed <= pod["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("cloud", ["aws", "gcp"])
def test_every_worker_of_the_launcher_s_watches_for_its_cloud_s_notices_and_outlives_the_set_up(
    cloud: str,
) -> None:
    (launcher,) = [found.value for found in documents_of(f"{cloud}.yaml")]
    (line,) = launcher["worker_setup_commands"]
    words = shlex.split(line)
    assert words[:4] == ["RAY_AUTH_MODE=token", "nohup", "bash", "-c"]
    assert words[-1] == "&"
    assert {">>", "2>&1", "<"} <= set(words)
    loop = shlex.split(words[4])
    arguments = loop[loop.index("asclepius") + 1 : loop.index("done")]
    options = parsed([argument.rstrip(";") for argument in arguments])
    assert (options["provider"], options["now"], options["node"]) == (cloud, False, "")
    # The head stays, and is on a machine that no cloud takes away.
    assert launcher["head_setup_commands"] == launcher["setup_commands"] == []
