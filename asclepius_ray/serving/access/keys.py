"""What a key is, and the file of all keys as a value; pure, and knows neither a disk nor a clock.

A key is `ask_` and 256 random bits. Written down is its SHA-256 alone: nobody can find 256 random bits
from their hash, so that a slow password hash would add nothing but time to each request.
"""

import hashlib
import secrets
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from asclepius_ray.errors import ConfigError

FORMAT_VERSION = 1
KEY_PREFIX = "ask_"
KEY_BYTES = 32
SCOPES = {
    "generate": "asks the models: every route below /v1",
    "metrics": "reads /metrics",
}
"""What a key may do; a key has at least one of them."""
LONGEST_NAME = 80
MOST_DAYS = 36_500


class KeyLimits(BaseModel):
    """What the holder of a key may take from all replicas together; 0 = no limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests_per_minute: Annotated[int, Field(ge=0)] = 0
    tokens_per_minute: Annotated[int, Field(ge=0)] = 0
    """Of prompts and answers together."""
    max_in_flight: Annotated[int, Field(ge=0)] = 0

    def __bool__(self) -> bool:
        return bool(self.requests_per_minute or self.tokens_per_minute or self.max_in_flight)


class KeyRecord(BaseModel):
    """One key as the file holds it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,40}$")]
    """What logs and audit lines call the key."""
    name: Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]
    """For people: whose key it is."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    scopes: Annotated[frozenset[str], Field(min_length=1)]
    limits: KeyLimits = KeyLimits()
    created: AwareDatetime
    expires: AwareDatetime | None = None
    revoked: AwareDatetime | None = None

    def state(self, now: datetime) -> str:
        """One of "usable", "expired" and "revoked"."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and now >= self.expires else "usable"


class KeyBook(BaseModel):
    """All keys of one endpoint, the oldest first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Annotated[int, Field(ge=FORMAT_VERSION, le=FORMAT_VERSION)] = FORMAT_VERSION
    keys: tuple[KeyRecord, ...] = ()

    def with_key(self, record: KeyRecord) -> "KeyBook":
        return self.model_copy(update={"keys": (*self.keys, record)})

    def with_revoked(self, key_id: str, now: datetime) -> "KeyBook":
        """The book in which that key is revoked for ever; a ConfigError if there is no such key."""
        if all(record.id != key_id for record in self.keys):
            raise ConfigError(f"there is no key {key_id!r}; `asclepius keys list` shows the ids")
        changed = [
            record.model_copy(update={"revoked": record.revoked or now}) if record.id == key_id else record
            for record in self.keys
        ]
        return self.model_copy(update={"keys": tuple(changed)})


def hash_key(api_key: str) -> str:
    """What is held of a key: its SHA-256 in hexadecimal digits."""
    return hashlib.sha256(api_key.encode()).hexdigest()


def make_key(
    name: str, scopes: Iterable[str], limits: KeyLimits, days: float, now: datetime
) -> tuple[str, KeyRecord]:
    """A new key and its record; `days` until it expires, 0 = never. The key itself is nowhere else."""
    wanted = frozenset(scopes)
    if unknown := sorted(wanted - set(SCOPES)):
        raise ConfigError(f"there is no scope {unknown[0]!r}; the scopes are {', '.join(SCOPES)}")
    if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
        raise ConfigError(f"a key's name has 1 to {LONGEST_NAME} printable characters")
    # Nothing compares with a NaN.
    if not 0 <= days <= MOST_DAYS:
        raise ConfigError(
            f"--days {days:g}: a key expires 0 to {MOST_DAYS} days after it is made, not before; 0 = never"
        )
    secret = KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)
    record = KeyRecord(
        id=f"key_{secrets.token_hex(6)}",
        name=name.strip(),
        sha256=hash_key(secret),
        scopes=wanted,
        limits=limits,
        created=now,
        expires=now + timedelta(days=days) if days else None,
    )
    return secret, record


def parse_book(content: bytes) -> KeyBook:
    """The keys of a file's content; a ValueError that repeats nothing of it."""
    try:
        return KeyBook.model_validate_json(content)
    except ValidationError as error:
        raise ValueError(f"it is damaged in {error.error_count()} place(s)") from None


def dump_book(book: KeyBook) -> bytes:
    return (book.model_dump_json(indent=2) + "\n").encode()
