"""The Ray Serve application: of one model, the engine and its HTTP surface in the same replica.

A request goes from Serve's proxy straight to the replica that generates: there is no router between. Only
where several models share an address, or a model may have no replica, a front stands before them.
"""

import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from ray import serve
from ray.serve.schema import LoggingConfig
from starlette.middleware import Middleware
from transformers import AutoTokenizer

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import ServingError
from asclepius_ray.serving.access.access import check_somebody_may_ask, open_access
from asclepius_ray.serving.access.gate import Gate
from asclepius_ray.serving.access.keys import hash_key
from asclepius_ray.serving.access.limit_desk import RayDesk
from asclepius_ray.serving.access.limit_link import LimitLink
from asclepius_ray.serving.adapter_base import check_adapter_base
from asclepius_ray.serving.admission.admission import Admission
from asclepius_ray.serving.admission.occupancy import Places
from asclepius_ray.serving.application_settings import ApplicationSettings
from asclepius_ray.serving.config import ServingConfig
from asclepius_ray.serving.engines.engine import EngineStats
from asclepius_ray.serving.engines.start import start_engine
from asclepius_ray.serving.front.call import Call, Item
from asclepius_ray.serving.front.carried_figures import CarriedFigures
from asclepius_ray.serving.front.front import MOST_OPEN_REQUESTS, Front, FrontSettings
from asclepius_ray.serving.front.in_process import CallBound, answer_call
from asclepius_ray.serving.front.names import check_names, deployment_name, needs_front
from asclepius_ray.serving.meters import Meters
from asclepius_ray.serving.model_source import fetch_adapter, fetch_model, locate_adapter, locate_model
from asclepius_ray.serving.page.routes import page_routes
from asclepius_ray.serving.parity import check_token_ids
from asclepius_ray.serving.ray_meters import RayMirror
from asclepius_ray.serving.scaling_options import scaling_options
from asclepius_ray.serving.surface.metrics_route import metrics_route
from asclepius_ray.serving.surface.served_model import ServedModel
from asclepius_ray.serving.surface.surface import build_surface
from asclepius_ray.tokens.chat_template import ensure_chat_template
from asclepius_ray.tokens.rendering import end_token_id

DEPLOYMENT_NAME = "model"
# Serve itself must not hold back what our own 429 answers; refusing takes a millisecond.
REFUSALS_AT_A_TIME = 1000


def build_application(settings: ApplicationSettings) -> serve.Application:
    """The application to run; the replicas never see the key itself."""
    config = settings.serving
    key_hash = settings.api_key_sha256
    if not key_hash:
        key = require_key(config, os.environ.get(config.api_key_env, ""))
        key_hash = hash_key(key) if key else ""
    settings = settings.model_copy(update={"api_key_sha256": key_hash})
    check_names(settings.name, config)
    if needs_front(1 + len(config.models), config.replicas.fewest):
        return build_fronted(settings, scaling_options(config))
    deployment: Any = ModelReplica
    configured = deployment.options(**scaling_options(config), **_replica_options(settings))
    application: serve.Application = configured.bind(settings)
    return application


def build_fronted(settings: ApplicationSettings, scaling: Mapping[str, Any]) -> serve.Application:
    """A front before one deployment for each model; `scaling`: `num_replicas` or `autoscaling_config`.

    The settings hold the key's hash already.
    """
    config = settings.serving
    alone = config.model_copy(update={"models": {}, "adapters": {}})
    each = [settings.model_copy(update={"serving": config.model_copy(update={"models": {}})})]
    each += [
        settings.model_copy(update={"name": name, "model": model, "serving": alone})
        for name, model in config.models.items()
    ]
    replica: Any = RelayedReplica
    handles = {
        deployment_name(one.name): replica.options(
            name=deployment_name(one.name), **scaling, **_replica_options(one)
        ).bind(one)
        for one in each
    }
    # The order of the list of models: each with its adapters behind it.
    deployments = {
        name: deployment_name(one.name) for one in each for name in (one.name, *one.serving.adapters)
    }
    front: Any = Front
    configured = front.options(
        max_ongoing_requests=MOST_OPEN_REQUESTS + REFUSALS_AT_A_TIME,
        graceful_shutdown_timeout_s=config.drain_seconds,
        max_surge_percent=config.surge_percent,
        ray_actor_options={"num_cpus": 0},
    )
    application: serve.Application = configured.bind(
        FrontSettings(
            deployments=deployments,
            serving=config,
            api_key_sha256=settings.api_key_sha256,
            waits_for_models=config.replicas.fewest > 0,
        ),
        handles,
    )
    return application


def _replica_options(settings: ApplicationSettings) -> dict[str, Any]:
    config = settings.serving
    return {
        "max_ongoing_requests": config.max_concurrent_requests + REFUSALS_AT_A_TIME,
        "graceful_shutdown_timeout_s": config.drain_seconds,
        "max_surge_percent": config.surge_percent,
        "ray_actor_options": {"num_cpus": 1, "num_gpus": _num_gpus(settings)},
    }


def _num_gpus(settings: ApplicationSettings) -> float:
    """Whole ones where the model is divided over several, else the replica's share of one."""
    if not settings.serving.use_gpu:
        return 0
    whole = settings.serving.tensor_parallel
    return whole if whole > 1 else settings.gpu_share


def require_key(config: ServingConfig, api_key: str) -> str:
    """The operator's key, empty where the file of keys is enough; else a ConfigError says how to make one."""
    check_somebody_may_ask(config, api_key)
    return api_key.strip()


class LoadedModel:
    """Loads the model, answers one request with it, and only then is ready."""

    # Serve awaits it, in the event loop of the streams; mypy knows of no such __init__.
    async def __init__(self, settings: ApplicationSettings) -> None:  # type: ignore[misc]
        self._settings = settings
        located = locate_model(settings.model)
        folder = fetch_model(located)
        self._tokenizer = _load_tokenizer(folder)
        check_token_ids(Folder(folder), self._tokenizer)
        config = settings.serving
        end_ids = frozenset({end_token_id(self._tokenizer), self._tokenizer.eos_token_id})
        adapters = {name: _fetch_checked(adapter, located) for name, adapter in config.adapters.items()}
        self._engine = start_engine(config, folder, end_ids, settings.gpu_share, adapters)
        self._check_vocabulary(folder)
        await self._engine.warm_up()

    async def check_health(self) -> None:
        """Serve replaces a replica whose engine has ended."""
        self._engine.check()

    def record_autoscaling_stats(self) -> dict[str, float]:
        """What Serve asks for where the number of replicas follows the load."""
        return asdict(self._admission.load)

    def _open_limits(self) -> LimitLink:
        replica = serve.get_replica_context()
        most = self._settings.serving.replicas.most
        return LimitLink(RayDesk(replica.app_name), replica.replica_id.unique_id, most)

    def _serve(self, meters: Meters, limits: LimitLink) -> tuple[dict[str, ServedModel], Admission]:
        """The model and its adapters by name, and the one admission that they share."""
        config, name, stats = self._settings.serving, self._settings.name, self._engine.stats()
        admission = Admission(
            config.admission_tokens,
            _places(stats.by_adapter.get("", stats)),
            config.max_queue_seconds,
            meters,
            limits,
            name,
            lambda: self._engine.stats().cache_use,
            {adapter: _places(own) for adapter, own in stats.by_adapter.items() if adapter},
        )
        self._admission = admission
        model = ServedModel(name, self._engine, self._tokenizer, config.max_new_tokens, admission)
        adapted = {adapter: replace(model, name=adapter, adapter=adapter) for adapter in config.adapters}
        return {name: model, **adapted}, admission

    def _check_vocabulary(self, folder: str) -> None:
        if len(self._tokenizer) > self._engine.num_embeddings:
            raise ServingError(
                f"{folder}: its tokenizer has {len(self._tokenizer)} tokens, its model knows "
                f"{self._engine.num_embeddings}; they do not belong together"
            )


@serve.deployment(
    name=DEPLOYMENT_NAME,
    graceful_shutdown_wait_loop_s=0.5,
    max_constructor_retry_count=1,
    # The proxy's and the replica's access lines hold no text, but they are not counted out per request
    # either; the audit line is, and it goes to the same file.
    logging_config=LoggingConfig(enable_access_log=False),
)
@serve.ingress()
class ModelReplica(LoadedModel):
    """A replica that clients reach without a front."""

    def __serve_build_asgi_app__(self) -> Any:
        config, limits = self._settings.serving, self._open_limits()
        key_hash = self._settings.api_key_sha256
        access = open_access(config, key_hash, Meters(RayMirror()), limits, within_serve=True)
        models, admission = self._serve(access.meters, limits)
        application = build_surface(
            models, [Middleware(Gate, access=access)], [metrics_route(access.meters)], page_routes()
        )
        application.router.lifespan_context = partial(self._lifespan, admission)
        return application

    @asynccontextmanager
    async def _lifespan(self, admission: Admission, _: object) -> AsyncIterator[None]:
        yield
        # What comes in the last moment is told to come again, before it meets an engine that has ended.
        admission.drain()
        self._engine.stop()


@serve.deployment(
    graceful_shutdown_wait_loop_s=0.5,
    max_constructor_retry_count=1,
    logging_config=LoggingConfig(enable_access_log=False),
)
class RelayedReplica(LoadedModel):
    """A replica behind the front: it knows no keys, and answers who comes through its handle alone."""

    async def __init__(self, settings: ApplicationSettings) -> None:  # type: ignore[misc]
        await super().__init__(settings)
        self._figures = CarriedFigures()
        meters = Meters(RayMirror(), self._figures)
        models, _ = self._serve(meters, self._open_limits())
        most = settings.serving.max_concurrent_requests
        self._application = build_surface(models, [Middleware(CallBound, most=most, meters=meters)])

    async def respond(self, call: Call) -> AsyncGenerator[Item, None]:
        """The answer to one request, in parts as they come."""
        async with aclosing(answer_call(self._application, call, self._figures)) as items:
            async for item in items:
                yield item

    def __del__(self) -> None:
        # Serve calls it when the last answer is finished.
        self._admission.drain()
        self._engine.stop()


def _fetch_checked(adapter: str, located_model: str) -> str:
    located = locate_adapter(adapter)
    check_adapter_base(Folder(located), located_model)
    return fetch_adapter(located)


def _places(stats: EngineStats) -> Places:
    return Places(stats.batch_requests, stats.cache_tokens)


def _load_tokenizer(folder: str) -> Any:
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise ServingError(f"{folder} has no tokenizer that can be loaded ({type(error).__name__})") from None
    ensure_chat_template(tokenizer)
    if tokenizer.eos_token_id is None:
        raise ServingError(f"{folder}: its tokenizer has no token that ends a text (eos_token)")
    return tokenizer
