"""One run = one TOML file: all sections together, `--set` overrides, and the resolved copy as JSON.

Needs neither ray nor torch: a wrong setting is reported at once.
"""

import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import Field, model_validator

from asclepius_ray.artifacts import KEY_IN_ADDRESS, Folder
from asclepius_ray.chat.account_limits import account_of, with_account_limits
from asclepius_ray.chat.config import EndpointConfig
from asclepius_ray.config import Section, parse_section
from asclepius_ray.errors import ConfigError
from asclepius_ray.evaluation.config import EvaluationConfig
from asclepius_ray.serving.config import ServingConfig
from asclepius_ray.synthesis.config import InputConfig, SynthesisConfig
from asclepius_ray.tokens.config import TokensConfig
from asclepius_ray.training.config import TrainingConfig

_KEYS_ARE_IN_THE_ENVIRONMENT = (
    "put it into the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), where no manifest and no log "
    "shows it"
)
_WORDS_OF_DENIAL = ("ACCESS_DENIED", "AccessDenied", "PermissionDenied", "Forbidden", "HTTP status 403")
JOBS = ("synthesize", "train", "evaluate", "serve", "pipeline")


class Run(Section):
    """All settings of one run."""

    name: str = Field(min_length=1)
    root: str = Field(min_length=1)
    """The run's folder or URI; relative to the working directory."""
    seed: int = 0
    input: InputConfig = InputConfig()
    teacher: EndpointConfig = EndpointConfig()
    judge: EndpointConfig = EndpointConfig()
    synthesis: SynthesisConfig = SynthesisConfig()
    tokens: TokensConfig = TokensConfig()
    training: TrainingConfig = TrainingConfig()
    serving: ServingConfig = ServingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _check_between_sections(self) -> "Run":
        limit = self.tokens.sequence_length // 2
        if self.evaluation.own_models and self.evaluation.max_new_tokens > limit:
            raise ValueError(
                f"evaluation.max_new_tokens is {self.evaluation.max_new_tokens}, more than half of "
                f"tokens.sequence_length ({self.tokens.sequence_length}): no note would fit before the answer"
            )
        for role, endpoint in endpoints_of(self).items():
            _check_endpoint(role, endpoint)
        _check_evaluation_budget(self)
        with_account_limits(asked_by_evaluation(self))
        for name, address in (
            ("root", self.root),
            ("input.path", self.input.path),
            ("training.dataset", self.training.dataset),
            ("training.base_model", self.training.base_model),
            ("serving.model", self.serving.model),
            *((f"serving.models.{name}", model) for name, model in self.serving.models.items()),
            *((f"serving.adapters.{name}", adapter) for name, adapter in self.serving.adapters.items()),
            ("serving.keys", self.serving.keys),
            ("evaluation.test_set", self.evaluation.test_set),
            *_realism_addresses(self.evaluation),
            *((f"{role}.model_path", endpoint.model_path) for role, endpoint in endpoints_of(self).items()),
        ):
            if KEY_IN_ADDRESS.match(address):
                raise ValueError(f"{name} holds a key before its @; {_KEYS_ARE_IN_THE_ENVIRONMENT}")
        return self

    @property
    def folder(self) -> Folder:
        return Folder(self.root).absolute()


def load_run(path: str, overrides: list[str] | None = None) -> Run:
    """Reads a run file and applies `a.b=c` overrides; a ConfigError names what is wrong with it."""
    return parse_run(read_run_text(path), name_run_file(path), overrides)


def name_run_file(path: str) -> str:
    """A run file's name for messages, without what may be a key in its address."""
    return f"the run file {Folder(path).shown}"


def read_run_text(path: str) -> str:
    """A run file as it is, here or in a bucket (s3://, gs://); a ConfigError where it cannot be read."""
    place, name = Folder(path), name_run_file(path)
    try:
        return (place.local_path.read_bytes() if place.is_local else _read_stored(path)).decode()
    except FileNotFoundError:
        raise ConfigError(f"there is no run file {place.shown}; jobs/runs/ holds examples") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name} cannot be read: it is no text in UTF-8 ({error.reason})") from None
    except OSError as error:
        if place.is_local:
            raise ConfigError(f"{name} cannot be read: {error}") from None
        raise ConfigError(f"{name} cannot be read: {_why_not_read(error)}") from None


def parse_run(text: str, where: str, overrides: list[str] | None = None) -> Run:
    """The run of a run file's text; `where` names it in a ConfigError."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where} is not valid TOML: {error}") from None
    for override in overrides or []:
        _apply_override(values, override)
    return parse_section(Run, values, where)


def _apply_override(values: dict[str, Any], override: str) -> None:
    """Puts one `a.b=c` into the values of a run file; a ConfigError where it is none."""
    path, separator, text = override.partition("=")
    if not separator or not path.strip():
        raise ConfigError(f"--set {override!r} is not of the form section.key=value")
    *sections, key = path.strip().split(".")
    table = values
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise ConfigError(f"--set {path.strip()}: {section} is not a section")
    table[key] = _parse_value(text)


def headers_in(values: Mapping[str, Any], section: str = "") -> Iterator[str]:
    """The settings that are headers, at any depth: only endpoints have them, and one may hold a key."""
    for name, value in values.items():
        path = f"{section}.{name}" if section else name
        if isinstance(value, Mapping):
            if name == "headers" and value:
                yield path
            yield from headers_in(value, path)


def headers_in_override(override: str) -> Iterator[str]:
    """The same of one `a.b=c`; a ConfigError where it is none."""
    values: dict[str, Any] = {}
    _apply_override(values, override)
    return headers_in(values)


def resolved_json(run: Run) -> str:
    """The run with every default written out; header values are left out, they may hold keys."""
    values = run.model_dump(mode="json")
    for role in endpoints_of(run):
        section = values
        for part in role.split(".", 2):
            section = section[part]
        section["headers"] = sorted(section["headers"])
    return json.dumps(values, indent=2) + "\n"


def endpoints_of(run: Run) -> dict[str, EndpointConfig]:
    """Every chat endpoint of a run under the path of its section."""
    return {
        "teacher": run.teacher,
        "judge": run.judge,
        **{f"evaluation.endpoints.{name}": found for name, found in run.evaluation.endpoints.items()},
        **{f"evaluation.judges.{name}": found for name, found in run.evaluation.judges.items()},
    }


def asked_by_evaluation(run: Run) -> dict[str, EndpointConfig]:
    """The chat endpoints of the evaluation under the paths of their sections."""
    return {path: found for path, found in endpoints_of(run).items() if path != "teacher"}


def read_secret(variable: str) -> str:
    """The value of an environment variable that holds a key, "" if it is unset or not named."""
    return os.environ.get(variable, "").strip() if variable else ""


def _read_stored(address: str) -> bytes:
    if KEY_IN_ADDRESS.match(address):
        raise ConfigError(
            f"{name_run_file(address)} has a key before the @ of its address; {_KEYS_ARE_IN_THE_ENVIRONMENT}"
        )
    filesystem, path = Folder(address).filesystem()
    with filesystem.open_input_stream(path) as stream:
        return bytes(stream.read())


def _why_not_read(error: OSError) -> str:
    """The store's own words name the request, and no key: none is in an address that is read at all."""
    said = " ".join(str(error).split())[:300]
    if any(word in said for word in _WORDS_OF_DENIAL):
        return (
            "access is denied; give this environment the right to read it (for s3:// AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY or a role, for gs:// GOOGLE_APPLICATION_CREDENTIALS or a service account)"
        )
    return f"{said}; check its address, and endpoint_override and region in its query"


def _realism_addresses(section: EvaluationConfig) -> list[tuple[str, str]]:
    if section.realism is None:
        return []
    path = "evaluation.realism"
    sets = [(f"{path}.texts.{name}.path", texts.path) for name, texts in section.realism.texts.items()]
    return [(f"{path}.model", section.realism.model), *sets]


def _check_evaluation_budget(run: Run) -> None:
    if not run.evaluation.budget_usd:
        return
    for role, endpoint in asked_by_evaluation(run).items():
        if endpoint.price is None and account_of(endpoint) and not endpoint.is_offline:
            raise ValueError(
                f"evaluation.budget_usd is {run.evaluation.budget_usd:g}, but without {role}.price its "
                "cost is not known; give its price, 0 for a server of your own"
            )


def _check_endpoint(role: str, endpoint: EndpointConfig) -> None:
    if endpoint.budget_usd and endpoint.price is None:
        raise ValueError(
            f"{role}.budget_usd is {endpoint.budget_usd:g}, but without {role}.price no cost is known"
        )
    steps = _steps_of(role)
    if unread := sorted(set(endpoint.sampling) - steps):
        raise ValueError(f"{role}.sampling.{unread[0]}: it has no such step, but {', '.join(sorted(steps))}")
    if role == "teacher":
        return
    if endpoint.transport == "batch" or "batch" in endpoint.model_fields_set:
        raise ValueError(f"{role}: batches are for the teacher alone; leave transport and batch out")
    if role.startswith("evaluation.endpoints.") and endpoint.model and endpoint.model_path:
        raise ValueError(f"{role}.model: a model that is served here is called as its section; leave it out")
    answer = endpoint.sampling.get("answer")
    if answer is not None and "max_tokens" in answer.model_fields_set:
        raise ValueError(f"{role}.sampling.answer.max_tokens: evaluation.max_new_tokens says it for all")


def _steps_of(role: str) -> set[str]:
    if role == "teacher":
        return {"note", "question", "answer"}
    return {"answer"} if role.startswith("evaluation.endpoints.") else {"judge"}


def _parse_value(text: str) -> object:
    try:
        parsed: object = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return parsed
