"""A chat endpoint as a value that travels to the workers, and the rule on where real notes may go."""

import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field
from types import MappingProxyType
from urllib.parse import SplitResult, urlsplit

from pydantic import SecretStr

from asclepius_ray.chat.config import (
    BatchConfig,
    EndpointConfig,
    PriceConfig,
    SamplingConfig,
    default_sampling,
)
from asclepius_ray.errors import ConfigError

# RFC 6762, RFC 8375, ICANN's .internal, and what Kubernetes calls its services.
_HOUSE_ENDINGS = (".local", ".internal", ".home.arpa", ".lan", ".svc", ".localhost")
_BODY_HEADERS = {"content-type", "content-length", "content-encoding", "transfer-encoding"}
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


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
    api_version: str = ""
    """Azure's; with it the key goes where Azure wants it."""
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
    transport: str = "requests"
    batch: BatchConfig = field(default_factory=BatchConfig)
    price: PriceConfig | None = None
    is_offline: bool = False
    is_started_by_run: bool = False
    is_trusted: bool = False
    """One of trusted_hosts."""
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
        _check_headers(config.headers)
        return cls(
            base_url=base_url.rstrip("/"),
            model=config.model_name,
            api_key=api_key,
            headers=dict(config.headers),
            extra_body=dict(config.extra_body),
            api_version=config.api_version,
            timeout_seconds=config.timeout_seconds,
            max_attempts=config.max_attempts,
            max_in_flight=config.max_in_flight,
            requests_per_minute=config.requests_per_minute,
            tokens_per_minute=config.tokens_per_minute,
            budget_usd=config.budget_usd,
            max_retry_seconds=config.max_retry_seconds,
            max_outage_seconds=config.max_outage_seconds,
            transport=config.transport,
            batch=config.batch,
            price=price_of(config),
            is_offline=config.is_offline,
            is_started_by_run=config.starts_offline_teacher or bool(config.model_path),
            is_trusted=_is_named(config, base_url),
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
        """Whether the environment's proxy is asked.

        It gets nothing of what stays in the house, and nothing in the clear of what is meant for a host that
        real notes are trusted to; through https it sees no more than the host's name.
        """
        in_the_clear = self.is_trusted and not is_https(self.base_url)
        return not (self.is_started_by_run or in_the_clear or is_in_the_house(self.base_url))

    @property
    def num_extra_bytes(self) -> int:
        """Of what goes with every request beside its messages, such as tools: it is paid for too."""
        return len(json.dumps(dict(self.extra_body))) if self.extra_body else 0

    def sampling_of(self, step: str) -> SamplingConfig:
        """The step's own table, or the defaults; a judge's temperature is 0 unless its table names one."""
        found, default = self.sampling.get(step), default_sampling(step)
        if found is None or "temperature" in found.model_fields_set:
            return found or default
        return found.model_copy(update={"temperature": default.temperature})

    @property
    def host(self) -> str:
        """Host and port for messages; a user name or password in the address is left out."""
        parts = _split(self.base_url)
        return _host(self.base_url) if parts.port is None else f"{_host(self.base_url)}:{parts.port}"


def price_of(config: EndpointConfig) -> PriceConfig | None:
    """The price of a call by the transport that is used."""
    if config.price is None or config.transport == "requests":
        return config.price
    share = config.price.batch_share
    return config.price.model_copy(
        update={
            "input_usd_per_million_tokens": config.price.input_usd_per_million_tokens * share,
            "output_usd_per_million_tokens": config.price.output_usd_per_million_tokens * share,
        }
    )


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


def is_in_the_house(base_url: str) -> bool:
    """True where no public network lies between: private addresses, and names that no public network has."""
    host = _host(base_url)
    return is_private(base_url) or host.endswith(_HOUSE_ENDINGS) or not ("." in host or ":" in host)


def is_https(base_url: str) -> bool:
    return _split(base_url).scheme == "https"


def check_key(api_key: str) -> None:
    """A ConfigError for a key that no header can carry; it does not repeat it."""
    if not (api_key.isascii() and api_key.isprintable()):
        raise ConfigError(
            "the API key holds characters that no key has (not ASCII, or a line break); correct the "
            "environment variable that holds it"
        )


def _check_headers(headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        if name.lower() in _BODY_HEADERS:
            raise ConfigError(
                f"headers: {name!r} says what the body of a request is, and that is JSON; remove it"
            )
        if not (_HEADER_NAME.fullmatch(name) and value.isascii() and value.isprintable()):
            shown = f"{name!r} " if _HEADER_NAME.fullmatch(name) else ""
            raise ConfigError(
                f"headers: {shown}cannot be a header; its name and its value are ASCII in one line, and the "
                "name has no blanks"
            )


def check_trusted(config: EndpointConfig, started_by_run: bool) -> None:
    """Refuses to send real notes to a host that nobody allowed; call it where the input is notes."""
    if config.starts_offline_teacher or started_by_run or is_loopback(config.base_url):
        return
    if config.allow_real_notes or _is_named(config, config.base_url):
        return
    host = _host(config.base_url)
    raise ConfigError(
        f"real notes would be sent to the host {host}, which is neither this machine nor started by the run; "
        f'if they may go there, add it by name: trusted_hosts = ["{host}"], or set allow_real_notes = true '
        "to send them wherever base_url points"
    )


def check_encrypted(config: EndpointConfig, what: str) -> None:
    """Refuses to send `what` through a public network in the clear."""
    if is_https(config.base_url) or is_in_the_house(config.base_url) or _is_named(config, config.base_url):
        return
    host = _host(config.base_url)
    raise ConfigError(
        f"{what} would go to {host} in the clear: base_url begins with http://; use https://, or, if the "
        f'way there is private, add the host by name: trusted_hosts = ["{host}"]'
    )


def _is_named(config: EndpointConfig, base_url: str) -> bool:
    return _host(base_url) in {trusted.strip().rstrip(".").lower() for trusted in config.trusted_hosts}


def _split(base_url: str) -> SplitResult:
    try:
        parts = urlsplit(base_url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        # No part of a name is empty or longer than 63 characters.
        (parts.hostname or "").encode("idna")
        usable = usable and not (parts.query or parts.fragment)
    except ValueError:
        usable = False
    if not usable:
        # The address may hold a password, so it is not repeated.
        raise ConfigError(
            "base_url is not an address of a chat endpoint; give one such as http://localhost:8000/v1, "
            "without a ? or a #"
        )
    return parts


def _host(base_url: str) -> str:
    return (_split(base_url).hostname or "").rstrip(".").lower()
