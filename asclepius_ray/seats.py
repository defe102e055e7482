"""Opens what an evaluation asks: the models and the judges, each with the place of its journal."""

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING

from asclepius_ray.chat.account_limits import account_of, with_account_limits
from asclepius_ray.chat.config import EndpointConfig
from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.endpoints import open_endpoint
from asclepius_ray.evaluation.config import JUDGE, MODEL_FOLDERS, EvaluationConfig
from asclepius_ray.fingerprints import seat_identity, served_identity
from asclepius_ray.progress import Progress
from asclepius_ray.run import Run, asked_by_evaluation

if TYPE_CHECKING:
    from asclepius_ray.evaluation.asking import Seat


@contextmanager
def open_seats(run: Run, progress: Progress) -> Iterator[tuple[dict[str, "Seat"], dict[str, "Seat"]]]:
    """The models that are asked and the judges, by name; what was started for them ends afterwards."""
    from asclepius_ray.evaluation.asking import Seat

    section = run.evaluation
    served = {name: run.folder.child(MODEL_FOLDERS[name]).uri for name in section.own_models}
    served |= {name: config.model_path for name, config in section.endpoints.items() if config.model_path}
    limited = with_account_limits(asked_by_evaluation(run))
    asked = {
        name: limited[f"evaluation.endpoints.{name}"] for name in section.endpoints if name not in served
    }
    judges = {JUDGE: limited["judge"]}
    judges |= {name: limited[f"evaluation.judges.{name}"] for name in section.judges}

    with ExitStack() as stack:

        def opened(config: EndpointConfig) -> Endpoint:
            return stack.enter_context(open_endpoint(config, run.serving, progress))

        seats = {
            name: Seat(f"judges/{name}", opened(config), answers_identity(config), account_of(config))
            for name, config in judges.items()
        }
        models = {
            name: Seat(f"models/{name}", opened(config), answers_identity(config), account_of(config))
            for name, config in asked.items()
        }
        if served:
            endpoints = stack.enter_context(serve_models(run, served, progress))
            models |= {
                name: Seat(f"models/{name}", endpoint, model_identity(served[name]))
                for name, endpoint in endpoints.items()
            }
        yield {name: models[name] for name in section.models if name in models}, seats


def answers_identity(config: EndpointConfig) -> str:
    """What the answers of a section depend on beside the requests: the served model, or the address."""
    return model_identity(config.model_path) if config.model_path else seat_identity(config)


def model_identity(model: str) -> str:
    """`served_identity`, and of a model of the hub its revision too, where one is known.

    For journals alone: a finished evaluation does not become another one when the hub is away.
    """
    from asclepius_ray.serving.model_source import hub_revision, is_hugging_face_id, locate_model

    identity = served_identity(model)
    located = locate_model(model)
    revision = hub_revision(located) if is_hugging_face_id(located) else ""
    return sha256(f"{identity} {revision}".encode()).hexdigest() if revision else identity


@contextmanager
def serve_models(run: Run, models: dict[str, str], progress: Progress) -> Iterator[dict[str, Endpoint]]:
    """Serves models for a while, on loopback, with a key that nobody else has."""
    from asclepius_ray.serving.stage import open_models

    section = run.evaluation
    api_key = secrets.token_urlsafe(32)
    serving = run.serving.private("127.0.0.1")
    own = EndpointConfig(max_in_flight=section.max_in_flight, timeout_seconds=section.timeout_seconds)
    with open_models(models, serving, api_key, progress) as base_urls:
        configs = {name: _patient(section.endpoints.get(name, own), section) for name in base_urls}
        yield {
            name: Endpoint.from_config(
                configs[name].model_copy(update={"model": name, "base_url": base_url}), base_url, api_key
            )
            for name, base_url in base_urls.items()
        }


def _patient(config: EndpointConfig, section: EvaluationConfig) -> EndpointConfig:
    """The section of a served model, with the evaluation's own patience unless it names another."""
    if "timeout_seconds" in config.model_fields_set:
        return config
    return config.model_copy(update={"timeout_seconds": section.timeout_seconds})
