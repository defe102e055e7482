"""The front's deployment: always on, small, and the only one that clients reach.

It imports neither torch nor an engine, needs no CPU of its own, and keeps what clients sent for no longer
than their requests last.
"""

from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ConfigDict
from ray import serve
from ray.serve.schema import LoggingConfig
from starlette.middleware import Middleware

from asclepius_ray.serving.access.access import open_access
from asclepius_ray.serving.access.gate import Gate
from asclepius_ray.serving.access.limit_link import LimitLink, LocalDesk
from asclepius_ray.serving.config import ServingConfig
from asclepius_ray.serving.front.handles import HandleLine, RunningReplicas
from asclepius_ray.serving.front.relay import Relay
from asclepius_ray.serving.front.surface import front_surface
from asclepius_ray.serving.meters import Meters
from asclepius_ray.serving.ray_meters import RayMirror
from asclepius_ray.serving.surface.metrics_route import metrics_route
from asclepius_ray.serving.surface.route import ApiRoute

FRONT_NAME = "front"
MOST_OPEN_REQUESTS = 4096
"""Of all models together; each replica has its own bound."""


class FrontSettings(BaseModel):
    """What the front needs."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    deployments: dict[str, str]
    """Name of a model or adapter → the deployment whose replicas answer for it; the first name is that of
    requests which name none."""
    serving: ServingConfig
    api_key_sha256: str = ""
    """The hash of the operator's key, empty without one."""
    waits_for_models: bool = True
    """Ready only when every model has a replica; not so where models start when they are asked."""


@serve.deployment(
    name=FRONT_NAME,
    graceful_shutdown_wait_loop_s=0.5,
    max_constructor_retry_count=1,
    logging_config=LoggingConfig(enable_access_log=False),
)
@serve.ingress()
class Front:
    """Checks keys, lists the models, holds requests and passes them on."""

    def __init__(self, settings: FrontSettings, handles: dict[str, Any]) -> None:
        """`handles`: deployment → its handle."""
        self._settings = settings
        self._handles = handles

    def __serve_build_asgi_app__(self) -> Any:
        settings, replica = self._settings, serve.get_replica_context()
        # Limits are kept where tokens are counted: at the replicas.
        limits = LimitLink(LocalDesk(), replica.replica_id.unique_id)
        access = open_access(
            settings.serving, settings.api_key_sha256, Meters(RayMirror()), limits, within_serve=True
        )
        access.max_open_requests = MOST_OPEN_REQUESTS
        running = RunningReplicas(replica.app_name)
        lines = {
            name: Relay(HandleLine(handle, running), settings.serving.held_requests, access.meters)
            for name, handle in self._handles.items()
        }

        async def is_ready() -> bool:
            return not settings.waits_for_models or all(
                [await relay.line.has_replica() for relay in lines.values()]
            )

        relays = {name: lines[deployment] for name, deployment in settings.deployments.items()}
        gate = Middleware(Gate, access=access)
        return front_surface(relays, is_ready, [gate], [_metrics_route(access.meters)])


def _metrics_route(meters: Meters) -> ApiRoute:
    return replace(
        metrics_route(meters),
        summary="The figures of all models behind this address",
        description="In Prometheus' text format, for a key of the scope `metrics`: counts and times of every "
        "answer, those of a request counted from its first byte, the wait for a replica included. An answer "
        "that its client left is counted with the next one of its replica, if not to its last token. What a "
        "replica is at a moment (running and waiting requests, held tokens, cache use, expected wait) only "
        "Ray's exporter tells.",
    )
