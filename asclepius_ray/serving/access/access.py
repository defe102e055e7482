"""All that the gate of one replica stands on, opened as `[serving]` says."""

from dataclasses import dataclass, field
from pathlib import Path

from asclepius_ray.errors import ConfigError
from asclepius_ray.serving.access.audit import AuditLog
from asclepius_ray.serving.access.body_guard import LONGEST_BODY_SECONDS
from asclepius_ray.serving.access.key_file import KeyFile
from asclepius_ray.serving.access.key_ring import KeyRing
from asclepius_ray.serving.access.limit_link import LimitLink, LocalDesk
from asclepius_ray.serving.config import ServingConfig
from asclepius_ray.serving.meters import Meters

FEWEST_KEY_CHARACTERS = 16


@dataclass
class Access:
    """Who may ask, how much of it at a time, and where it is written down."""

    keys: KeyRing
    meters: Meters = field(default_factory=Meters)
    audit: AuditLog = field(default_factory=AuditLog)
    limits: LimitLink = field(default_factory=lambda: LimitLink(LocalDesk(), "replica"))
    """For the admission of what this access lets pass."""
    cors_origins: frozenset[str] = frozenset()
    max_open_requests: int = 256
    longest_body_seconds: float = LONGEST_BODY_SECONDS
    proxy_echoes_request_id: bool = False
    """Whether X-Request-Id is put on answers by what stands before us, as Ray Serve does."""

    def start(self) -> None:
        self.keys.watch()

    async def close(self) -> None:
        self.keys.close()
        self.audit.close()
        await self.limits.close()


def open_access(
    config: ServingConfig, operator_sha256: str, meters: Meters, limits: LimitLink, *, within_serve: bool
) -> Access:
    """The access of one replica; `operator_sha256` is the hash of the environment's key, empty without."""
    folder = Path(config.audit) if config.audit else None
    file = KeyFile(config.keys) if config.keys else None
    return Access(
        keys=KeyRing(operator_sha256, file),
        meters=meters,
        audit=AuditLog(folder, limits.replica_id, meters.audit_line_lost),
        limits=limits,
        cors_origins=frozenset(config.cors_origins),
        max_open_requests=config.max_concurrent_requests,
        proxy_echoes_request_id=within_serve,
    )


def check_somebody_may_ask(config: ServingConfig, operator_key: str) -> None:
    """A ConfigError where there is neither the operator's key nor a usable one in the file of keys, and where
    one of both is there and not as it must be."""
    file = KeyFile(config.keys) if config.keys else None
    ring = KeyRing("", file)
    if file is not None and ring.is_unreadable:
        raise ConfigError(
            f"serving.keys: the file of keys {file.shown} is {ring.trouble}, and no key of it could be "
            "checked; put a copy of it back, or remove it and make the keys anew with asclepius keys create"
        )
    if operator_key.strip():
        _check_operator_key(config, operator_key.strip())
    elif not ring.has_usable_key:
        place = "ROOT" if file is None else file.shown
        raise ConfigError(
            f"serving.api_key_env: the environment variable {config.api_key_env} is empty, there is no "
            "usable key in a file of keys, and a model is never served without a key; "
            f"{_how_to_make_one(config)}, or asclepius keys create {place} --name NAME"
        )


def _check_operator_key(config: ServingConfig, key: str) -> None:
    """What a header carries unchanged, and nobody finds by trying."""
    is_plain = all("!" <= character <= "~" for character in key)
    if is_plain and len(key) >= FEWEST_KEY_CHARACTERS:
        return
    wrong = f"of {len(key)} characters" if is_plain else "with a character that is no printable ASCII one"
    raise ConfigError(
        f"serving.api_key_env: the environment variable {config.api_key_env} holds a key {wrong}; it takes "
        f"at least {FEWEST_KEY_CHARACTERS} printable ASCII characters without spaces; "
        f"{_how_to_make_one(config)}"
    )


def _how_to_make_one(config: ServingConfig) -> str:
    return (
        f"make one: export {config.api_key_env}="
        "$(python -c 'import secrets; print(secrets.token_urlsafe(32))')"
    )
