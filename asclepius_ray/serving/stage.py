"""Models → endpoints: puts each model on the cluster as a Serve application, and takes it away again.

Reads model folders; writes nothing. `open_models` is for the stages that ask models, `serve_until_stopped`
for the job that stays.
"""

import hashlib
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx
import ray
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.exceptions import RayServeException
from ray.serve.schema import ApplicationStatus

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import ServingError
from asclepius_ray.progress import Progress
from asclepius_ray.serving.access.keys import hash_key
from asclepius_ray.serving.adapter_base import check_adapter_base
from asclepius_ray.serving.application import build_application, require_key
from asclepius_ray.serving.application_settings import ApplicationSettings
from asclepius_ray.serving.config import ServingConfig
from asclepius_ray.serving.model_source import (
    adapter_revision,
    checked_files,
    locate_adapter,
    locate_model,
    model_revision,
)
from asclepius_ray.serving.opened import POLL_SECONDS, OpenedApplications
from asclepius_ray.serving.parity import unchecked_parts
from asclepius_ray.serving.reasons import reason
from asclepius_ray.serving.serve_start import differences, start_serve

START_TIMEOUT_SECONDS = 3600.0
WATCH_SECONDS = 10.0
REACHED_SECONDS = 60.0


@contextmanager
def open_models(
    models: Mapping[str, str],
    config: ServingConfig,
    api_key: str,
    progress: Progress,
    *,
    is_public: bool = False,
) -> Iterator[dict[str, str]]:
    """Serves each model under its name and yields name → base URL (…/v1); afterwards they are gone.

    A public one is known on the cluster by its name alone: where that is served already, its replicas are
    replaced one after the other at the same address, and whoever served it before does not take it away any
    more. Where that fails or is broken off, what was served before stays, and stays theirs.

    Ray is already connected. A single model stands at /v1, unless others are served already; several stand
    below a prefix each. A Serve instance that already runs on the cluster is used and kept, if other
    applications remain on it.
    """
    key = require_key(config, api_key)
    located = {name: locate_model(model) for name, model in models.items()}
    config = _located(config)
    names = {name: _application_name(name, "" if is_public else model) for name, model in located.items()}
    # Before anything is started or replaced: settings that contradict each other are refused here.
    applications = _build_applications(located, config, key, progress)
    progress.begin("starting Ray Serve")
    running = start_serve(config, progress)
    if is_public:
        for difference in differences(config):
            progress.say(f"warning: {difference}; end it with `serve shutdown` to start it anew")
    opened = OpenedApplications(names.values())
    drain_seconds = 0.0
    try:
        prefixes = _route_prefixes(names)
        for name in (name for name in names if names[name] in opened.found):
            progress.say(f"{name} is served on this cluster already: its replicas are replaced one by one")
        _deploy([serve.RunTarget(applications[n], name=names[n], route_prefix=prefixes[n]) for n in located])
        _wait_until_running(names, progress)
        addresses = {name: f"{running.address}{prefixes[name].rstrip('/')}" for name in located}
        _wait_until_reached(addresses.values())
        opened.take_over()
        # Models of a stage are asked by that stage alone, which has ended by then.
        drain_seconds = config.drain_seconds if is_public else 0.0
        yield {name: f"{address}/v1" for name, address in addresses.items()}
    finally:
        if opened.close(drain_seconds, progress):
            running.forget()


def serve_until_stopped(
    models: Mapping[str, str], config: ServingConfig, api_key: str, progress: Progress
) -> None:
    """Serves until SIGTERM or Ctrl-C raises in this thread; says the addresses and every change of state."""
    for name, model in {**models, **config.models}.items():
        _warn_of_unchecked(name, locate_model(model), config.adapters if name in models else {}, progress)
    with open_models(models, config, api_key, progress, is_public=True) as base_urls:
        progress.end()
        for name, base_url in base_urls.items():
            named = ", ".join((name, *config.adapters, *config.models))
            progress.say(f"{named} is served at {base_url} (the key is that of {config.api_key_env})")
        state = ""
        while not threading.Event().wait(WATCH_SECONDS):
            found = ", ".join(
                f"{name} {app.status.value}" for name, app in serve.status().applications.items()
            )
            if found != state and state:
                progress.say(found)
            state = found


def _build_applications(
    located: Mapping[str, str], config: ServingConfig, key: str, progress: Progress
) -> dict[str, serve.Application]:
    # Those beyond the fewest wait for a GPU that is free, or for a node that has one.
    num_replicas = (len(located) + len(config.models)) * max(1, config.replicas.fewest)
    gpu_share = _gpu_share(num_replicas, progress) if config.use_gpu else 1.0
    return {
        name: build_application(
            ApplicationSettings(
                name=name,
                model=model,
                serving=config,
                api_key_sha256=hash_key(key) if key else "",
                gpu_share=gpu_share,
                revision=_revision(model, config),
            )
        )
        for name, model in located.items()
    }


def _located(config: ServingConfig) -> ServingConfig:
    """The settings with further models and adapters as every node finds them."""
    models = {name: locate_model(model) for name, model in config.models.items()}
    adapters = {name: locate_adapter(adapter) for name, adapter in config.adapters.items()}
    return config.model_copy(update={"models": models, "adapters": adapters})


def _revision(model: str, config: ServingConfig) -> str:
    """What tells all that is served from other files at the same places."""
    revisions = [model_revision(each) for each in (model, *config.models.values())]
    return " ".join([*revisions, *(adapter_revision(each) for each in config.adapters.values())])


def _warn_of_unchecked(name: str, located: str, adapters: Mapping[str, str], progress: Progress) -> None:
    """Says what of a model and its adapters from elsewhere nobody can compare with their training."""
    if parts := unchecked_parts(checked_files(located)):
        progress.say(
            f"warning: {name} came without the {' and '.join(parts)} of a training by this system to compare "
            "with: it is served as it is, under this version's instruction prompt"
        )
    for adapter_name, adapter in adapters.items():
        if doubt := check_adapter_base(Folder(locate_adapter(adapter)), located):
            progress.say(
                f"warning: nobody can tell whether the adapter {adapter_name} belongs to {name}: {doubt}; "
                "it is served as it is"
            )


def _deploy(targets: list[serve.RunTarget]) -> None:
    try:
        serve.run_many(
            targets, wait_for_ingress_deployment_creation=False, wait_for_applications_running=False
        )
    except (RayServeException, ray.exceptions.RayError) as error:
        raise ServingError(
            f"Ray Serve does not take the models: {reason(str(error))}; `serve status` says what it serves, "
            "and `serve shutdown` ends it"
        ) from None


def _gpu_share(num_replicas: int, progress: Progress) -> float:
    """What each replica gets of a GPU: a whole one, or a part where there are fewer GPUs than replicas."""
    num_gpus = int(ray.cluster_resources().get("GPU", 0))
    if num_gpus == 0:  # an autoscaled group of GPU nodes stands at none until somebody asks
        progress.say(
            "serving waits for a GPU: the cluster has none yet; if it never gets one, set "
            "serving.use_gpu = false"
        )
        return 1.0
    on_one_gpu = -(-num_replicas // num_gpus)
    return 1.0 if on_one_gpu == 1 else int(100 / on_one_gpu) / 100


def _application_name(name: str, located: str) -> str:
    """The same model gets the same name: a rerun replaces what a killed run left on the cluster."""
    return f"{_in_a_path(name)}-{hashlib.sha256(located.encode()).hexdigest()[:8]}"


def _in_a_path(name: str) -> str:
    """A model may be called anything; routes and log files may not."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", name)


def _route_prefixes(names: Mapping[str, str]) -> dict[str, str]:
    """Prefixes that nobody else on the cluster has: other runs serve models of the same names.

    One that is served already keeps its own: its clients know that address.
    """
    found = _get_global_client().get_serve_details()["applications"]
    alone = len(names) == 1 and not found.keys() - set(names.values())
    return {
        name: found.get(application, {}).get("route_prefix") or ("/" if alone else f"/{application}")
        for name, application in names.items()
    }


def _wait_until_running(names: Mapping[str, str], progress: Progress) -> None:
    step = f"serving {', '.join(names)}: loading"
    progress.begin(step, total=len(names))
    give_up = time.monotonic() + START_TIMEOUT_SECONDS
    while True:
        found = serve.status().applications
        states = {name: found[application] for name, application in names.items() if application in found}
        for name, state in states.items():
            if state.status in (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY):
                raise ServingError(f"{name} cannot be served: {reason(_messages(state))}")
        num_running = sum(state.status == ApplicationStatus.RUNNING for state in states.values())
        progress.update(num_running)
        if num_running == len(names):
            return
        if time.monotonic() > give_up:
            raise ServingError(
                f"{', '.join(names)} did not start within {START_TIMEOUT_SECONDS:.0f} s; "
                "`serve status` and `ray status` say what they wait for"
            )
        time.sleep(POLL_SECONDS)


def _wait_until_reached(addresses: Iterable[str]) -> None:
    """Serve calls a replica running a second or two before its proxy leads anybody to it."""
    give_up = time.monotonic() + REACHED_SECONDS
    # Who it is was settled by Serve: the certificate need not be one that this process trusts.
    with httpx.Client(verify=False, trust_env=False, timeout=5) as client:
        for address in addresses:
            while not _is_ready(client, address):
                if time.monotonic() > give_up:
                    raise ServingError(
                        f"{address} does not lead to the model within {REACHED_SECONDS:.0f} s of its start; "
                        "is the address reachable from here, and its port not another program's?"
                    )
                time.sleep(POLL_SECONDS)


def _is_ready(client: httpx.Client, address: str) -> bool:
    try:
        return client.get(f"{address}/health/ready").status_code == 200
    except httpx.HTTPError:
        return False


def _messages(state: Any) -> str:
    return "\n".join([*(deployment.message for deployment in state.deployments.values()), state.message])
