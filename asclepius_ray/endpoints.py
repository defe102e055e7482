"""Opens the chat endpoints of a run: an address as it is, or the offline teacher on the cluster."""

import asyncio
import contextlib
import secrets
from collections.abc import Iterator

from asclepius_ray.chat.client import check_endpoint
from asclepius_ray.chat.config import OFFLINE_MODEL, EndpointConfig
from asclepius_ray.chat.endpoint import Endpoint, check_trusted, is_loopback
from asclepius_ray.chat.offline.server import OfflineTeacher
from asclepius_ray.errors import ConfigError
from asclepius_ray.run import read_secret


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
    if not config.base_url:
        raise ConfigError(
            f'{role}.base_url is not set; give an OpenAI-compatible address that ends in /v1, or "offline" '
            "for the rules that ship with the package"
        )
    if config.starts_offline_teacher:
        if config.model_name != OFFLINE_MODEL:
            raise ConfigError(
                f'{role}.model is {config.model!r}, but {role}.base_url = "offline" answers by rules; '
                f"leave {role}.model out, or give the address of that model"
            )
        return
    if not config.base_url.startswith(("http://", "https://")):
        raise ConfigError(
            f"{role}.base_url {config.base_url!r} is not an address; it begins with http:// or https://"
        )
    if not config.model:
        raise ConfigError(f"{role}.model is not set; name the model that {config.base_url} serves")
    if sends_real_notes:
        check_trusted(config, started_by_run=False)
    if config.api_key_env and not read_secret(config.api_key_env) and not is_loopback(config.base_url):
        raise ConfigError(
            f"the environment variable {config.api_key_env} ({role}.api_key_env) is not set; put the key of "
            f'{config.base_url} there, or set {role}.api_key_env = "" if it needs none'
        )


def reach_endpoint(config: EndpointConfig) -> None:
    """Asks the endpoint for its models: an EndpointError if it cannot be reached or refuses the key."""
    if not config.starts_offline_teacher:
        asyncio.run(check_endpoint(_as_it_is(config)))


@contextlib.contextmanager
def open_endpoint(config: EndpointConfig) -> Iterator[Endpoint]:
    """Yields an endpoint that answers; starts the offline teacher and ends it afterwards."""
    if not config.starts_offline_teacher:
        yield _as_it_is(config)
        return
    import ray

    api_key = secrets.token_urlsafe(32)
    actor = ray.remote(OfflineTeacherActor).options(num_cpus=0).remote(api_key)
    try:
        yield Endpoint.from_config(config, ray.get(actor.base_url.remote()), api_key)
    finally:
        ray.kill(actor)


def _as_it_is(config: EndpointConfig) -> Endpoint:
    return Endpoint.from_config(config, config.base_url, read_secret(config.api_key_env))
