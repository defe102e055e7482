"""The frame of every section of a run file: frozen, unknown keys refused, two kinds of settings.

A setting either makes an artefact (it is part of that artefact's fingerprint) or only says how the
work is done (`Operational`: limits, workers, ports), and may change on a rerun.
"""

import hashlib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from asclepius_ray.errors import ConfigError


@dataclass(frozen=True)
class Operational:
    """Marks a field that may change on a rerun: `workers: Annotated[int, Operational()] = 2`."""


@dataclass(frozen=True)
class ModelName:
    """Marks a field that names a model: where that is a folder or an address, no fingerprint holds it.

    Fingerprints stand in manifests, which leave the machine when a run is published.
    """


class CountRange(NamedTuple):
    """How many there are of something: at least so many, at most so many."""

    fewest: int
    most: int


def count_range(of: str, least: int = 1) -> BeforeValidator:
    """Lets a field of CountRange be written as `4` or `[2, 8]`; `least`: the smallest `fewest`.

    There is always a most of 1 or more, and a number alone is both.
    """

    def parse(value: object) -> object:
        ends = [value, value] if isinstance(value, int) else value
        match ends:
            case [int(fewest), int(most)] if least <= fewest <= most and most > 0:
                if bool not in (type(fewest), type(most)):
                    return ends
        raise ValueError(f"it takes a number of {of} from 1 on, or [fewest, most] of them from {least} on")

    return BeforeValidator(parse)


def is_place(name: str) -> bool:
    """Whether a model's name is a folder or an address: those mean nothing, or too much, to others."""
    return "://" in name or name.startswith((".", "/", "~")) or name.count("/") > 1


def shown_name(name: str) -> str:
    """The name as others may see it: of a folder or an address its last part alone."""
    return name.partition("?")[0].rstrip("/").rsplit("/", 1)[-1] if is_place(name) else name


def told_apart(name: str) -> str:
    """`shown_name` with a hash behind it, so that folders that end alike stay two names."""
    if not is_place(name):
        return name
    return f"{shown_name(name)}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


class Section(BaseModel):
    """One table of a run file."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=()
    )

    def fingerprint(self) -> dict[str, Any]:
        """The settings that make an artefact, as plain JSON values, nested sections included."""
        values = self.model_dump(mode="json")
        kept: dict[str, Any] = {}
        for name, field in type(self).model_fields.items():
            if any(isinstance(mark, Operational) for mark in field.metadata):
                continue
            value = getattr(self, name)
            kept[name] = _settings_of(value, values[name])
            if any(isinstance(mark, ModelName) for mark in field.metadata):
                kept[name] = told_apart(kept[name])
        return kept


def _settings_of(value: object, as_json: Any) -> Any:
    if isinstance(value, Section):
        return value.fingerprint()
    if isinstance(value, dict):
        return {str(name): _settings_of(one, as_json[name]) for name, one in value.items()}
    return as_json


SectionKind = TypeVar("SectionKind", bound=Section)


def parse_section(kind: type[SectionKind], values: object, where: str) -> SectionKind:
    """Checks `values` against `kind`; a ConfigError names every wrong key with its full path.

    The value itself is repeated only where it is short and scalar: a header may hold a key.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        lines = [f"  {_describe(problem)}" for problem in error.errors(include_url=False)]
        raise ConfigError(f"{where} has {len(lines)} wrong setting(s):\n" + "\n".join(lines)) from None


def load_section(kind: type[SectionKind], path: str, what: str, where_some_are: str) -> SectionKind:
    """Reads a TOML file that is one section; a ConfigError names what is wrong with it.

    `what` it is, such as "profile", and the folder that holds examples.
    """
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"there is no {what} {path}; look in {where_some_are}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the {what} {path} cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the {what} {path} is not valid TOML: {error}") from None
    return parse_section(kind, values, f"the {what} {path}")


def _describe(problem: ErrorDetails) -> str:
    path = ".".join(str(part) for part in problem["loc"])
    if not path:
        return problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        return f"{path}: there is no such setting; check its spelling and its section"
    if problem["type"] == "missing":
        return f"{path}: this setting is required"
    value = problem["input"]
    secret = "header" in path or "key" in path
    shown = f" (found {value!r})" if isinstance(value, str | int | float) and not secret else ""
    return f"{path}: {problem['msg']}{shown}"
