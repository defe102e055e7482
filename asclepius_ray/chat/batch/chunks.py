"""Pending requests → the input files of batches, each within the provider's limits. Pure."""

import hashlib
import json
import pickle
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from asclepius_ray.chat.body import Body
from asclepius_ray.chat.config import BatchConfig
from asclepius_ray.chat.exchange import Request
from asclepius_ray.chat.gate import Load, load_of
from asclepius_ray.chat.judgement import Trial
from asclepius_ray.chat.prices import CHARACTERS_PER_TOKEN
from asclepius_ray.errors import EndpointError

ADDRESS = "/v1/chat/completions"
_KEY_CHARACTERS = 40


@dataclass(frozen=True)
class Pending:
    """A request that is not bought yet. It is kept packed: there may be 150,000 of them."""

    key: bytes
    packed: bytes

    @classmethod
    def of(cls, key: bytes, request: Request) -> "Pending":
        return cls(key, zlib.compress(pickle.dumps(request)))

    @property
    def request(self) -> Request:
        request: Request = pickle.loads(zlib.decompress(self.packed))
        return request


@dataclass
class Wanted:
    """A pending request and how far it has come over all batches."""

    pending: Pending
    trial: Trial

    @property
    def custom_id(self) -> str:
        """Tells the request, its length and its attempt, also to a later run: at most 64 characters."""
        return f"{id_of(self.pending.key)}-{self.trial.max_tokens}-{self.trial.attempts + 1}"

    @property
    def load(self) -> Load:
        return load_of(self.pending.request, self.trial.max_tokens)

    @property
    def num_tokens(self) -> int:
        return -(-self.load.num_characters // CHARACTERS_PER_TOKEN) + self.trial.max_tokens


@dataclass(frozen=True)
class Chunk:
    """The input of one batch."""

    wanted: tuple[Wanted, ...]
    content: bytes
    num_tokens: int

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


def id_of(key: bytes) -> str:
    """The part of a custom_id that tells the request."""
    return key.hex()[:_KEY_CHARACTERS]


def read_custom_id(custom_id: str) -> tuple[str, int, int] | None:
    """The request's id, its max_tokens and its attempt; None where we did not write it."""
    parts = custom_id.split("-")
    if len(parts) != 3 or len(parts[0]) != _KEY_CHARACTERS or not (parts[1] + parts[2]).isdecimal():
        return None
    return parts[0], int(parts[1]), int(parts[2])


def cut_chunks(wanted: Iterable[Wanted], limits: BatchConfig, body: Body) -> Iterator[Chunk]:
    """Chunks in the order of the requests; an EndpointError for a request that no batch may hold."""
    kept: list[Wanted] = []
    lines: list[bytes] = []
    num_bytes = num_tokens = 0
    largest_bytes = limits.max_file_mib << 20
    for one in wanted:
        line, tokens = _line(one, body), one.num_tokens
        if len(line) > largest_bytes or tokens > (limits.max_enqueued_tokens or tokens):
            raise EndpointError(
                f"one request (step {one.pending.request.step}) of {len(line)} bytes and about {tokens} "
                "tokens is more than batch.max_file_mib or batch.max_enqueued_tokens allows"
            )
        is_full = len(kept) == limits.max_requests or num_bytes + len(line) > largest_bytes
        if kept and (is_full or num_tokens + tokens > (limits.max_enqueued_tokens or num_tokens + tokens)):
            yield Chunk(tuple(kept), b"".join(lines), num_tokens)
            kept, lines, num_bytes, num_tokens = [], [], 0, 0
        kept.append(one)
        lines.append(line)
        num_bytes += len(line)
        num_tokens += tokens
    if kept:
        yield Chunk(tuple(kept), b"".join(lines), num_tokens)


def fields_in(content: bytes) -> frozenset[str]:
    """What the bodies of a chunk name; all of them name the same."""
    first = content[: content.find(b"\n") + 1]
    return frozenset(json.loads(first)["body"]) if first else frozenset()


def _line(wanted: Wanted, body: Body) -> bytes:
    written = body.write(wanted.pending.request, wanted.trial.max_tokens)
    line = {"custom_id": wanted.custom_id, "method": "POST", "url": ADDRESS, "body": written}
    return json.dumps(line).encode() + b"\n"
