"""A model as the routes see it, and how `model` in a request chooses one."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from asclepius_ray.serving.admission.admission import Admission
from asclepius_ray.serving.engines.engine import Engine
from asclepius_ray.serving.surface.api_errors import ApiError
from asclepius_ray.serving.surface.token_bytes import TokenBytes


@dataclass(frozen=True)
class ServedModel:
    """A loaded model with its public name and the longest answer where a request sets no limit.

    Several may share an engine and its admission: the model itself, and each of its adapters.
    """

    name: str
    engine: Engine
    tokenizer: Any
    max_new_tokens: int
    admission: Admission
    adapter: str = ""
    """The name that the engine knows a LoRA adapter by; empty = the model itself."""
    created: int = field(default_factory=lambda: int(time.time()))

    @cached_property
    def token_bytes(self) -> TokenBytes:
        """What each token stands for, as log-probabilities are reported with it."""
        return TokenBytes(self.tokenizer)


def find_model(models: Mapping[str, ServedModel], name: str) -> ServedModel:
    """The model of that name; a 404 that lists those that are here, and does not repeat the name."""
    model = models.get(name)
    if model is None:
        raise unknown_model(models)
    return model


def unknown_model(names: Iterable[str]) -> ApiError:
    message = f"There is no such model here; this endpoint serves {', '.join(names)}."
    return ApiError(404, "model_not_found", message, "model")


def choose_model(models: Mapping[str, ServedModel], name: str | None) -> ServedModel:
    """As `find_model`; the first one where the request names none."""
    return find_model(models, next(iter(models)) if name is None else name)


def describe_model(model: ServedModel) -> dict[str, Any]:
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "asclepius-ray",
        "max_model_len": model.engine.max_context_tokens,
    }
