"""What is looked at first of a body, so that a full replica refuses it unchecked and untokenized."""

from collections.abc import Mapping
from typing import Any

from asclepius_ray.serving.access.account import Account
from asclepius_ray.serving.surface.body_checks import check_body
from asclepius_ray.serving.surface.responding import check_engine
from asclepius_ray.serving.surface.schemas import NamedModel, NamedOrFirstModel
from asclepius_ray.serving.surface.served_model import ServedModel, choose_model
from asclepius_ray.serving.surface.size_checks import check_counts


def find_ready_model(
    models: Mapping[str, ServedModel],
    values: Mapping[str, Any],
    account: Account,
    kind: type[NamedModel] | type[NamedOrFirstModel] = NamedModel,
) -> ServedModel:
    """The model that the body names; an ApiError where it could not answer even the smallest request."""
    named = check_body(kind, {name: values[name] for name in kind.model_fields if name in values})
    model = choose_model(models, named.model)
    check_engine(model)
    model.admission.refuse_when_full(account, model.name)
    check_counts(values, model.engine.max_context_tokens)
    return model
