"""A chat endpoint as a value that travels to the workers, and the rule on where real notes may go."""

import ipaddress
from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field
from types import MappingProxyType
from urllib.parse import SplitResult, urlsplit

from pydantic import SecretStr

from asclepius_ray.chat.config import EndpointConfig, PriceConfig, SamplingConfig, default_sampling
from asclepius_ray.errors import ConfigError


@dataclass(frozen=True)
class _EndpointFields:
    """What an Endpoint holds; of the key and the headers only values that nothing prints.

    Ray Data writes the fields of what its workers get, nested ones too, into its logs and its dashboard.
    """

    base_url: str
    model: str
    api_key: InitVar[str] = ""
    headers: InitVar[Mapping[str, str]] = MappingProxyType({})
    extra_body: Mapping[str, object] = field(default_factory=dict)
    timeout_seconds: float = 120.0
    """One attempt of one request, from sending to the last byte."""
    max_attempts: int = 6
    """Attempts on timeouts, broken connections and 5xx; waiting out a 429 is no attempt."""
    max_in_flight: int = 64
    """Over all workers together; 0 = unlimited."""
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    budget_usd: float = 0.0
    max_retry_seconds: float = 1800.0
    max_outage_seconds: float = 7200.0
    price: PriceConfig | None = None
    is_offline: bool = False
    is_started_by_run: bool = False
    sampling: Mapping[str, SamplingConfig] = field(default_factory=dict)
    hidden_api_key: SecretStr = field(init=False, repr=False)
    hidden_headers: Mapping[str, SecretStr] = field(init=False, repr=False)

    def __post_init__(self, api_key: str, headers: Mapping[str, str]) -> None:
        hidden = {name: SecretStr(value) for name, value in headers.items()}
        object.__setattr__(self, "hidden_api_key", SecretStr(api_key))
        object.__setattr__(self, "hidden_headers", hidden)


class Endpoint(_EndpointFields):
    """Where and how to ask. The key and the headers never show in a repr, in a message or among fields."""

    @classmethod
    def from_config(cls, config: EndpointConfig, base_url: str, api_key: str) -> "Endpoint":
        """The endpoint of a section, at the address that was opened for it."""
        _host(base_url)
        check_key(api_key)
        return cls(
            base_url=base_url.rstrip("/"),
            model=config.model_name,
            api_key=api_key,
            headers=dict(config.headers),
            extra_body=dict(config.extra_body),
            timeout_seconds=config.timeout_seconds,
            max_attempts=config.max_attempts,
            max_in_flight=config.max_in_flight,
            requests_per_minute=config.requests_per_minute,
            tokens_per_minute=config.tokens_per_minute,
            budget_usd=config.budget_usd,
            max_retry_seconds=config.max_retry_seconds,
            max_outage_seconds=config.max_outage_seconds,
            price=config.price,
            is_offline=config.is_offline,
            is_started_by_run=config.starts_offline_teacher,
            sampling=dict(config.sampling.items()),
        )

    @property
    def api_key(self) -> str:
        return self.hidden_api_key.get_secret_value()

    @property
    def headers(self) -> dict[str, str]:
        return {name: value.get_secret_value() for name, value in self.hidden_headers.items()}

    @property
    def may_use_proxy(self) -> bool:
        """Whether the environment's proxy is asked; it gets nothing of what stays in the cluster."""
        return not (self.is_started_by_run or is_loopback(self.base_url))

    def sampling_of(self, step: str) -> SamplingConfig:
        """The step's own table, or the defaults (a judge's temperature is 0)."""
        return self.sampling.get(step, default_sampling(step))

    @property
    def host(self) -> str:
        """Host and port for messages; a user name or password in the address is left out."""
        parts = _split(self.base_url)
        return _host(self.base_url) if parts.port is None else f"{_host(self.base_url)}:{parts.port}"


def is_loopback(base_url: str) -> bool:
    """True where the address is this machine's own and no other machine sees what is sent."""
    host = _host(base_url)
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_private(base_url: str) -> bool:
    """True for loopback and for addresses that no public network has, such as 10.0.0.7."""
    try:
        return ipaddress.ip_address(_host(base_url)).is_private
    except ValueError:
        return is_loopback(base_url)


def check_key(api_key: str) -> None:
    """A ConfigError for a key that no header can carry; it does not repeat it."""
    if not (api_key.isascii() and api_key.isprintable()):
        raise ConfigError(
            "the API key holds characters that no key has (not ASCII, or a line break); correct the "
            "environment variable that holds it"
        )


def check_trusted(config: EndpointConfig, started_by_run: bool) -> None:
    """Refuses to send real notes to a host that nobody allowed; call it where the input is notes."""
    if config.starts_offline_teacher or started_by_run or is_loopback(config.base_url):
        return
    host = _host(config.base_url)
    if host in {trusted.strip().rstrip(".").lower() for trusted in config.trusted_hosts}:
        return
    raise ConfigError(
        f"real notes would be sent to the host {host}, which is neither this machine nor started by the run; "
        f'if they may go there, add it by name: trusted_hosts = ["{host}"]'
    )


def _split(base_url: str) -> SplitResult:
    try:
        parts = urlsplit(base_url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        # The address may hold a password, so it is not repeated.
        raise ConfigError(
            "base_url is not an address of a chat endpoint; give one such as http://localhost:8000/v1"
        )
    return parts


def _host(base_url: str) -> str:
    return (_split(base_url).hostname or "").rstrip(".").lower()
