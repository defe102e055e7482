"""`[serving]` of a run → GPUs, money for so many hours, and money for a million tokens. Pure."""

from dataclasses import dataclass

from asclepius_ray.costs.gpus import GpuPlan
from asclepius_ray.serving.config import ServingConfig

SECONDS_PER_HOUR = 3600
MILLION = 1_000_000


@dataclass(frozen=True)
class ServingCost:
    """What it takes to serve for a while: at the fewest replicas all the time, and at the most."""

    fewest_gpus: int
    most_gpus: int
    hours: float
    fewest_usd: float
    most_usd: float
    usd_per_million_tokens: float | None
    """Of a replica that is never idle; None where nobody knows how many it answers in a second."""


def serving_cost(serving: ServingConfig, gpu: GpuPlan) -> ServingCost:
    """Replicas x GPUs of one x hours x price, for every model that is served."""
    gpus_of_replica = serving.tensor_parallel * (1 + len(serving.models))
    fewest, most = (count * gpus_of_replica for count in serving.replicas)
    per_million = None
    if gpu.tokens_per_second:
        usd_per_second = serving.tensor_parallel * gpu.usd_per_hour / SECONDS_PER_HOUR
        per_million = usd_per_second / gpu.tokens_per_second * MILLION
    usd = gpu.serving_hours * gpu.usd_per_hour
    return ServingCost(fewest, most, gpu.serving_hours, fewest * usd, most * usd, per_million)
