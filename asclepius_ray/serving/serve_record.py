"""What a cluster remembers of its Serve: what it was started with, and which run each application is of.

Ray's own store on the head node holds it, under the id of Serve's controller: of a Serve that has ended
nothing counts any more. Serve itself can tell neither: HAProxy's settings are none of its options, and it
knows applications, not who put them there.
"""

from pydantic import BaseModel, ConfigDict
from ray.experimental.internal_kv import (
    _internal_kv_del,
    _internal_kv_get,
    _internal_kv_put,
)
from ray.serve.context import _get_global_client

_NAMESPACE = "asclepius"


class ServeStart(BaseModel):
    """The settings that a running Serve keeps, whatever is deployed on it later."""

    model_config = ConfigDict(frozen=True)

    proxy: str
    tls_certificate: str = ""
    tls_key: str = ""
    drain_seconds: float = 0.0
    """0 = nothing ends a stream before its replica does."""
    proxy_folder: str = ""
    """HAProxy's folder on the head node."""


def record_start(start: ServeStart) -> None:
    """Has the cluster remember it for the Serve that runs now."""
    _put("start", start.model_dump_json())


def recorded_start() -> ServeStart:
    """What the Serve that runs now was started with; of one that others started, what it tells itself."""
    if found := _get("start"):
        return ServeStart.model_validate_json(found)
    options = _get_global_client().http_config
    return ServeStart(
        proxy="serve", tls_certificate=options.ssl_certfile or "", tls_key=options.ssl_keyfile or ""
    )


def record_run(application: str, run: str) -> None:
    """From now on it is that run which takes the application away."""
    _put(f"run {application}", run)


def recorded_run(application: str) -> str:
    """The run that takes the application away; empty where none said so."""
    return _get(f"run {application}")


def forget_records() -> None:
    """Takes away what is remembered of the Serve that runs now; before it ends."""
    _internal_kv_del(_key(""), del_by_prefix=True, namespace=_NAMESPACE)


def _put(key: str, value: str) -> None:
    _internal_kv_put(_key(key), value, namespace=_NAMESPACE)


def _get(key: str) -> str:
    return (_internal_kv_get(_key(key), namespace=_NAMESPACE) or b"").decode()


def _key(key: str) -> str:
    return f"{_get_global_client()._controller._actor_id.hex()} {key}"
