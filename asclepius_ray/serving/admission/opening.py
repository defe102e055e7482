"""The admission of one engine, as `[serving]` and the engine itself say."""

from asclepius_ray.serving.access.limit_link import LimitLink
from asclepius_ray.serving.admission.admission import Admission
from asclepius_ray.serving.admission.occupancy import Places
from asclepius_ray.serving.config import ServingConfig
from asclepius_ray.serving.engines.engine import Engine
from asclepius_ray.serving.meters import Meters

CONTEXTS_OF_UNKNOWN_CACHE = 16
"""An engine that does not say how large its cache is gets so many of the longest requests."""


def open_admission(
    config: ServingConfig, engine: Engine, model: str, meters: Meters, limits: LimitLink
) -> Admission:
    """Of an engine that has been started: its cache and its batch are the places."""
    stats = engine.stats()
    tokens = stats.cache_tokens or CONTEXTS_OF_UNKNOWN_CACHE * engine.max_context_tokens
    return Admission(
        budget_tokens=config.admission_tokens,
        places=Places(stats.batch_requests, tokens),
        max_queue_seconds=config.max_queue_seconds,
        meters=meters,
        limits=limits,
        name=model,
        cache_use=lambda: engine.stats().cache_use,
    )
