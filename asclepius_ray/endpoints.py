"""Opens the chat endpoints of a run: an address as it is, the offline teacher or a model on the cluster."""

import asyncio
import contextlib
import secrets
from collections.abc import Iterator

from asclepius_ray.chat.client import check_endpoint
from asclepius_ray.chat.config import OFFLINE_MODEL, EndpointConfig
from asclepius_ray.chat.endpoint import Endpoint, check_encrypted, check_trusted, is_loopback
from asclepius_ray.chat.offline.server import OfflineTeacher
from asclepius_ray.config import told_apart
from asclepius_ray.errors import ConfigError, ServingError
from asclepius_ray.progress import Progress
from asclepius_ray.run import read_secret
from asclepius_ray.serving.config import ServingConfig

OUR_FIELDS = {"model", "messages", "max_tokens", "max_completion_tokens", "temperature", "stream", "n"}
"""What a request's body gets from the run's own settings, or what the reading of a reply relies on."""
DEPLOYMENT_PATH = "/openai/deployments/"


class OfflineTeacherActor:
    """Holds the offline teacher's server in a process of its own, on an address that all nodes reach."""

    def __init__(self, api_key: str) -> None:
        import ray

        self._teacher = OfflineTeacher(host=ray.util.get_node_ip_address(), port=0, api_key=api_key)
        self._teacher.start()

    def base_url(self) -> str:
        return self._teacher.base_url


def check_endpoint_config(config: EndpointConfig, role: str, sends_real_notes: bool) -> None:
    """Refuses, before anything is started, an endpoint that cannot work or must not see the notes."""
    _check_extra_body(config, role)
    if config.model_path:
        _check_served(config, role)
    elif not config.base_url:
        raise ConfigError(
            f'{role}.base_url is not set; give an OpenAI-compatible address that ends in /v1, "offline" for '
            f"the rules that ship with the package, or {role}.model_path for a model to serve"
        )
    elif config.starts_offline_teacher:
        _check_offline(config, role)
    else:
        _check_address(config, role, sends_real_notes)


def reach_endpoint(config: EndpointConfig) -> None:
    """Asks the endpoint for its models: an EndpointError if it cannot be reached or refuses the key.

    A model that the run will serve itself is looked for: a ServingError if it is not there.
    """
    if config.model_path:
        from asclepius_ray.serving.model_source import locate_model

        locate_model(config.model_path)
    elif not config.starts_offline_teacher:
        asyncio.run(check_endpoint(_as_it_is(config)))


@contextlib.contextmanager
def open_endpoint(config: EndpointConfig, serving: ServingConfig, progress: Progress) -> Iterator[Endpoint]:
    """Yields an endpoint that answers; what was started for it, as `serving` says, ends afterwards.

    Ray is already connected, unless the endpoint is an address.
    """
    opened: contextlib.AbstractContextManager[Endpoint]
    if config.model_path:
        opened = _served_model(config, serving, progress)
    elif config.starts_offline_teacher:
        opened = _offline_teacher(config)
    else:
        opened = contextlib.nullcontext(_as_it_is(config))
    with opened as endpoint:
        yield endpoint


@contextlib.contextmanager
def _offline_teacher(config: EndpointConfig) -> Iterator[Endpoint]:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    api_key = secrets.token_urlsafe(32)
    # Beside the driver: on a worker's node it would go with that node, or keep it from going.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"num_cpus": 0, "scheduling_strategy": here}
    actor = ray.remote(OfflineTeacherActor).options(**options).remote(api_key)
    try:
        yield Endpoint.from_config(config, ray.get(actor.base_url.remote()), api_key)
    finally:
        ray.kill(actor)


@contextlib.contextmanager
def _served_model(config: EndpointConfig, serving: ServingConfig, progress: Progress) -> Iterator[Endpoint]:
    """The model behind a key that nobody else has, on an address that the workers of all nodes reach."""
    import ray

    from asclepius_ray.serving.stage import open_models

    api_key = secrets.token_urlsafe(32)
    # Its name goes into replies, manifests and the card: no path of this machine.
    config = config.model_copy(update={"model": config.model or told_apart(config.model_path)})
    nodes = [node for node in ray.nodes() if node["Alive"]]
    heads = [node for node in nodes if "node:__internal_head__" in node["Resources"]]
    host = (heads or nodes)[0]["NodeManagerAddress"]
    settings = serving.private(host)
    models = {config.model_name: config.model_path}
    with open_models(models, settings, api_key, progress) as base_urls:
        base_url = base_urls[config.model_name]
        if is_loopback(base_url) and len({node["NodeManagerAddress"] for node in nodes}) > 1:
            raise ServingError(
                "Ray Serve already listens on this machine's loopback, where the workers on other nodes do "
                "not reach the model; end that Serve with `serve shutdown`"
            )
        yield Endpoint.from_config(config, base_url, api_key)


def _check_extra_body(config: EndpointConfig, role: str) -> None:
    if ours := sorted(OUR_FIELDS & config.extra_body.keys()):
        raise ConfigError(
            f"{role}.extra_body.{ours[0]} would override what the run itself sends; take it out, and set "
            f"{role}.model or {role}.sampling instead"
        )


def _check_served(config: EndpointConfig, role: str) -> None:
    for name, is_set, why in (
        ("base_url", bool(config.base_url), "a model is served here or asked elsewhere"),
        ("api_version", bool(config.api_version), "it is Azure's"),
        ("transport", config.transport == "batch", 'a served model takes transport = "requests" alone'),
    ):
        if is_set:
            raise ConfigError(f"{role}.model_path and {role}.{name} exclude each other ({why}); drop one")


def _check_offline(config: EndpointConfig, role: str) -> None:
    if config.model_name != OFFLINE_MODEL:
        raise ConfigError(
            f'{role}.model is {config.model!r}, but {role}.base_url = "offline" answers by rules; '
            f"leave {role}.model out, or give the address of that model"
        )
    if config.api_version:
        raise ConfigError(f'{role}.api_version is Azure\'s, and {role}.base_url is "offline"; drop one')


def _check_address(config: EndpointConfig, role: str, sends_real_notes: bool) -> None:
    if not config.base_url.startswith(("http://", "https://")):
        raise ConfigError(
            f"{role}.base_url {config.base_url!r} is not an address; it begins with http:// or https://"
        )
    if not config.model:
        raise ConfigError(f"{role}.model is not set; name the model that {config.base_url} serves")
    if config.api_version:
        _check_azure(config, role)
    if sends_real_notes:
        check_trusted(config, started_by_run=False)
        check_encrypted(config, "real notes")
    api_key = read_secret(config.api_key_env)
    if api_key or config.headers:
        check_encrypted(config, "the API key" if api_key else "the headers")
    if config.api_key_env and not api_key and not is_loopback(config.base_url):
        raise ConfigError(
            f"the environment variable {config.api_key_env} ({role}.api_key_env) is not set; put the key of "
            f'{config.base_url} there, or set {role}.api_key_env = "" if it needs none'
        )


def _check_azure(config: EndpointConfig, role: str) -> None:
    _, found, deployment = config.base_url.rstrip("/").partition(DEPLOYMENT_PATH)
    if not found or not deployment or "/" in deployment or "?" in deployment:
        raise ConfigError(
            f"{role}.api_version is set, as for Azure's older addresses, but {role}.base_url does not end in "
            f"{DEPLOYMENT_PATH}NAME; for Azure's /openai/v1, drop {role}.api_version"
        )
    if config.transport == "batch":
        raise ConfigError(
            f'{role}.transport = "batch" needs Azure\'s newer address, which ends in /openai/v1, without '
            f"{role}.api_version"
        )


def _as_it_is(config: EndpointConfig) -> Endpoint:
    return Endpoint.from_config(config, config.base_url, read_secret(config.api_key_env))
