"""One run = one TOML file: all sections together, `--set` overrides, and the resolved copy as JSON.

Needs neither ray nor torch: a wrong setting is reported at once.
"""

import json
import os
import re
import tomllib
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from asclepius_ray.artifacts import Folder
from asclepius_ray.chat.config import EndpointConfig
from asclepius_ray.config import Section, parse_section
from asclepius_ray.errors import ConfigError
from asclepius_ray.evaluation.config import EvaluationConfig
from asclepius_ray.serving.config import ServingConfig
from asclepius_ray.synthesis.config import InputConfig, SynthesisConfig
from asclepius_ray.tokens.config import TokensConfig
from asclepius_ray.training.config import TrainingConfig

# A secret may hold a slash; what is behind a colon and no number is a secret, and no port.
_KEY_IN_ADDRESS = re.compile(r"\w+://([^/?]*@|[^/?:]+:(?!\d+([/?]|$))[^?]*@)")
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
        if self.evaluation.max_new_tokens > limit:
            raise ValueError(
                f"evaluation.max_new_tokens is {self.evaluation.max_new_tokens}, more than half of "
                f"tokens.sequence_length ({self.tokens.sequence_length}): no note would fit before the answer"
            )
        for name, steps, known in (
            ("teacher", self.teacher.sampling, {"note", "question", "answer"}),
            ("judge", self.judge.sampling, {"judge"}),
        ):
            if unread := sorted(set(steps) - known):
                raise ValueError(f"{name}.sampling.{unread[0]}: the {name} has no such step")
        _check_endpoint("teacher", self.teacher)
        _check_endpoint("judge", self.judge)
        _check_judge(self.judge)
        for name, address in (
            ("root", self.root),
            ("input.path", self.input.path),
            ("training.dataset", self.training.dataset),
            ("training.base_model", self.training.base_model),
            ("serving.model", self.serving.model),
            *((f"serving.models.{name}", model) for name, model in self.serving.models.items()),
            *((f"serving.adapters.{name}", adapter) for name, adapter in self.serving.adapters.items()),
            ("serving.keys", self.serving.keys),
            ("teacher.model_path", self.teacher.model_path),
            ("judge.model_path", self.judge.model_path),
        ):
            if _KEY_IN_ADDRESS.match(address):
                raise ValueError(
                    f"{name} holds a key before its @; put it into the environment (AWS_ACCESS_KEY_ID, "
                    "AWS_SECRET_ACCESS_KEY), where no manifest and no log shows it"
                )
        return self

    @property
    def folder(self) -> Folder:
        return Folder(self.root).absolute()


def load_run(path: str, overrides: list[str] | None = None) -> Run:
    """Reads a run file and applies `a.b=c` overrides; a ConfigError names what is wrong with it."""
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"there is no run file {path}; jobs/runs/ holds examples") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the run file {path} cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the run file {path} is not valid TOML: {error}") from None
    for override in overrides or []:
        _apply_override(values, override)
    return parse_section(Run, values, f"the run file {path}")


def resolved_json(run: Run) -> str:
    """The run with every default written out; header values are left out, they may hold keys."""
    values = run.model_dump(mode="json")
    for endpoint in ("teacher", "judge"):
        values[endpoint]["headers"] = sorted(values[endpoint]["headers"])
    return json.dumps(values, indent=2) + "\n"


def read_secret(variable: str) -> str:
    """The value of an environment variable that holds a key, "" if it is unset or not named."""
    return os.environ.get(variable, "").strip() if variable else ""


def _check_endpoint(name: str, endpoint: EndpointConfig) -> None:
    if endpoint.budget_usd and endpoint.price is None:
        raise ValueError(
            f"{name}.budget_usd is {endpoint.budget_usd:g}, but without {name}.price no cost is known"
        )


def _check_judge(judge: EndpointConfig) -> None:
    if judge.transport == "batch" or judge.budget_usd:
        raise ValueError('judge: transport = "batch" and budget_usd are for the teacher alone')
    for name in ("max_retry_seconds", "max_outage_seconds", "batch"):
        if name in judge.model_fields_set:
            raise ValueError(f"judge.{name} is for the teacher alone: the evaluation waits without end")


def _apply_override(values: dict[str, Any], override: str) -> None:
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


def _parse_value(text: str) -> object:
    try:
        parsed: object = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return parsed
