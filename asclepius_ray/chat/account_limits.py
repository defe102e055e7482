"""Sections of a run file → the same sections, those of one account with the same limits. Pure."""

from collections.abc import Mapping

from asclepius_ray.chat.config import EndpointConfig
from asclepius_ray.errors import ConfigError

_LIMITS = ("requests_per_minute", "tokens_per_minute", "max_in_flight")


def account_of(config: EndpointConfig) -> str:
    """The account that is asked: address and name of the key's variable; "" = a server of the run's own."""
    if config.model_path or config.starts_offline_teacher or not config.base_url:
        return ""
    return f"{config.base_url.rstrip('/')} {config.api_key_env}"


def with_account_limits(sections: Mapping[str, EndpointConfig]) -> dict[str, EndpointConfig]:
    """Gives every section of an account the limits that one of them tells; the keys are their paths.

    A ConfigError where two tell different ones: to take either would be to ignore the other in silence.
    """
    found = dict(sections)
    for account in {account_of(config) for config in sections.values()} - {""}:
        members = {path: config for path, config in sections.items() if account_of(config) == account}
        limits = {name: value for name in _LIMITS if (value := _common_limit(name, members)) is not None}
        found |= {path: config.model_copy(update=limits) for path, config in members.items()}
    return found


def _common_limit(name: str, members: Mapping[str, EndpointConfig]) -> int | None:
    """The limit that the members tell; None where none of them does."""
    told = {path: getattr(config, name) for path, config in members.items() if _tells(name, config)}
    if not told:
        return None
    (first, value), *others = told.items()
    for path, other in others:
        if other != value:
            raise ConfigError(
                f"{first}.{name} is {value} and {path}.{name} is {other}, but both are one account (base_url "
                "and api_key_env are the same), whose limits hold over all that ask by it; give the same "
                "number, or one of them alone"
            )
    return int(value)


def _tells(name: str, config: EndpointConfig) -> bool:
    """A rate of 0 is none told; a number in flight counts where it is written, 0 = unlimited too."""
    return name in config.model_fields_set and (name == "max_in_flight" or getattr(config, name) > 0)
