"""The names under which an address serves, and whether it needs a front; pure."""

import hashlib
import re

from asclepius_ray.errors import ConfigError
from asclepius_ray.serving.config import ServingConfig


def needs_front(num_models: int, fewest_replicas: int) -> bool:
    """Whether something must stand before the replicas: they are of several models, or may be none.

    Otherwise requests go straight to the replica that generates, which saves a hop for each token.
    """
    return num_models > 1 or fewest_replicas == 0


def check_names(name: str, config: ServingConfig) -> None:
    """A ConfigError where the served model's own name stands among those of models or adapters."""
    for key in ("models", "adapters"):
        if name in getattr(config, key):
            raise ConfigError(
                f"serving.{key}: {name!r} is the name of the model itself (that of the run); choose another"
            )


def deployment_name(name: str) -> str:
    """Of one model among several: a model may be called anything, deployments may not."""
    return f"model-{re.sub('[^A-Za-z0-9_.-]', '-', name)}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
