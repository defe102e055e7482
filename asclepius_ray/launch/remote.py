"""The cluster behind a dashboard's address: whether it can be reached, its versions and its nodes."""

import logging
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httpx
import ray
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient

from asclepius_ray.errors import SubmitError

ANSWER_SECONDS = 15.0
STARTUP_SECONDS = 30.0
_SECONDS_OF_VERB = {"POST": 60.0, "PUT": 900.0}
"""Longer than an answer takes: a job is looked over before it is taken, a package goes over a slow line."""
_ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")


@dataclass(frozen=True)
class Versions:
    """What must be the same on both sides: pickled functions and Ray's protocols depend on it."""

    ray: str
    python: str


@dataclass(frozen=True)
class Node:
    """One live node."""

    num_cpus: float
    """0 on a head that leaves all work to others."""


class Client(JobSubmissionClient):  # type: ignore[misc]  # ray has no types
    """Ray's client, whose requests end: its own wait forever for a head that is gone without a word."""

    def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
        timeout = _SECONDS_OF_VERB.get(method, ANSWER_SECONDS)
        return super()._do_request(method, endpoint, **{"timeout": timeout, **options})


def own_versions() -> Versions:
    return Versions(ray=ray.__version__, python=platform.python_version())


def connect(address: str) -> JobSubmissionClient:
    """A client of the cluster; a SubmitError says why it cannot be reached or refuses us.

    RAY_AUTH_MODE and RAY_AUTH_TOKEN are Ray's own, and read by the client.
    """
    if not address.startswith(("http://", "https://")):
        raise SubmitError(
            f"--address {address!r} is not the address of a Ray dashboard; it looks like http://HOST:8265"
        )
    _check_reachable(address)
    for name in ("ray.dashboard.modules.job.sdk", "ray.dashboard.modules.dashboard_sdk"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with _explicit_address():
        try:
            return Client(address)
        except AuthenticationError as error:
            raise _refused(address) from error
        except (RuntimeError, ValueError, KeyError, OSError) as error:
            raise SubmitError(f"{address} does not answer as a Ray dashboard does: {_line(error)}") from error


def read_versions(client: JobSubmissionClient, address: str) -> Versions:
    """What the cluster runs."""
    ray_version = _get(client, address, "/api/version", "ray_version")
    python_version = _get(client, address, "/api/v0/cluster_metadata", "data", "pythonVersion")
    return Versions(ray=str(ray_version), python=str(python_version))


def read_job(client: JobSubmissionClient, address: str, job_id: str) -> JobDetails | None:
    """The job as the cluster knows it, None where it knows none of this name."""
    path = f"/api/jobs/{job_id}"
    with _answering(address, path):
        response = client._do_request("GET", path)
        if response.status_code == HTTPStatus.NOT_FOUND:
            return None
        response.raise_for_status()
        return JobDetails(**response.json())


def list_nodes(client: JobSubmissionClient, address: str) -> list[Node]:
    """The nodes that are alive; waits a little for a cluster that has just been started."""
    query = "/api/v0/nodes?limit=10000&filter_keys=state&filter_predicates=%3D&filter_values=ALIVE"
    deadline = time.monotonic() + STARTUP_SECONDS
    while not (found := _get(client, address, query, "data", "result", "result")):
        if time.monotonic() > deadline:
            raise SubmitError(f"the cluster at {address} has no live node; look at its dashboard")
        time.sleep(0.5)
    return [Node(num_cpus=float(node["resources_total"].get("CPU", 0))) for node in found]


def describe_spread(nodes: list[Node]) -> str:
    """Why a path of one machine does not hold for the job's work; "" if all of it runs on one node."""
    if len(nodes) > 1:
        return f"the cluster has {len(nodes)} nodes"
    if all(node.num_cpus == 0 for node in nodes):
        return "the cluster's head takes no work, which runs on nodes that are yet to come"
    return ""


def check_versions(ours: Versions, theirs: Versions, address: str) -> None:
    """A SubmitError names both sides if Ray's version or Python's major.minor differs."""
    if ours.ray != theirs.ray:
        raise SubmitError(
            f"the cluster at {address} runs Ray {theirs.ray}, and this environment has Ray {ours.ray}; "
            f"install ray=={theirs.ray} here, or start the cluster with {ours.ray}"
        )
    if _minor(ours.python) != _minor(theirs.python):
        raise SubmitError(
            f"the cluster at {address} runs Python {theirs.python}, and this environment has Python "
            f"{ours.python}; submit from Python {_minor(theirs.python)}, or use an image with "
            f"{_minor(ours.python)}"
        )


def _check_reachable(address: str) -> None:
    try:
        # Public also with token authentication on.
        httpx.get(f"{address.rstrip('/')}/api/authentication_mode", timeout=ANSWER_SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise SubmitError(
            f"no Ray dashboard can be reached at {address} ({_line(error)}); check the address and that "
            "the cluster is up, and for a remote one that its port 8265 is forwarded"
        ) from error


def _get(client: JobSubmissionClient, address: str, path: str, *keys: str) -> Any:
    # Ray's client has no public method for these; its request carries the token as Ray wants it.
    with _answering(address, path):
        response = client._do_request("GET", path)
        response.raise_for_status()
        answer = response.json()
        for key in keys:
            answer = answer[key]
    return answer


@contextmanager
def _answering(address: str, path: str) -> Iterator[None]:
    """A SubmitError for what is no answer to the request of that path."""
    try:
        yield
    except AuthenticationError as error:
        raise _refused(address) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SubmitError(f"the cluster at {address} does not answer to {path}: {_line(error)}") from error


def _refused(address: str) -> SubmitError:
    held = "is not the cluster's" if os.environ.get("RAY_AUTH_MODE") == "token" else "is missing"
    return SubmitError(
        f"the cluster at {address} asks for a token, and ours {held}: set RAY_AUTH_MODE=token and "
        "RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) to the cluster's own"
    )


@contextmanager
def _explicit_address() -> Iterator[None]:
    """Hides RAY_ADDRESS for a moment: Ray's client would prefer it to the address that it is given."""
    hidden = {name: os.environ.pop(name) for name in _ADDRESS_VARIABLES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
