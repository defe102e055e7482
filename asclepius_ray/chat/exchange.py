"""What is asked of a chat endpoint and what comes back; the key under which an answer is kept.

A request's key is a function of its content alone (step, messages, model, parameters), so that whoever
asks the same again, in this run or the next, finds what was bought before.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from asclepius_ray.chat.replies import FailureReason
from asclepius_ray.records import Message


@dataclass(frozen=True)
class Request:
    """One question to a model. `step` names the sampling table and the ledger's line."""

    step: str
    messages: tuple[Message, ...]
    temperature: float
    max_tokens: int
    accept_truncated: bool = False
    """A reply that ends at max_tokens is an answer, as in an evaluation with a fixed length."""
    accept_empty: bool = False
    """No text at all is an answer too, as an untrained model may give it."""
    repeat: int = 0
    """How often the same was asked before, where another answer is wanted: each is bought and kept."""
    is_urgent: bool = False
    """Others wait for this answer, so it is asked for first; no part of the key."""


@dataclass(frozen=True)
class Completion:
    """An answer. The tokens are those of all attempts that the server answered, not of the last alone."""

    text: str
    finish_reason: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    attempts: int
    is_usage_estimated: bool = False


@dataclass(frozen=True)
class Failure:
    """No answer, and why. The tokens were paid for all the same."""

    reason: FailureReason
    prompt_tokens: int = 0
    completion_tokens: int = 0
    attempts: int = 0
    is_usage_estimated: bool = False


@dataclass(frozen=True)
class Entry:
    """One answer as the journal keeps it: whose it is, what it says, what it cost."""

    key: bytes
    """request_key, 32 bytes."""
    step: str
    answer: Completion | Failure
    cost_usd: float | None
    """Of all attempts whose tokens are known; None where there is no price."""
    unsettled_usd: float = 0.0
    """Upper bound of what attempts that broke off may have been charged on top."""


def request_key(model: str, extra_body: Mapping[str, object], request: Request) -> bytes:
    """A sha256 over everything that the answer depends on; the address and the limits are no part of it."""
    content = {
        "step": request.step,
        "model": model,
        "messages": [[turn.role, turn.content] for turn in request.messages],
        "temperature": request.temperature,
        "max_tokens": request.max_tokens,
        "accept": [request.accept_truncated, request.accept_empty],
        "extra_body": dict(extra_body),
    }
    if request.repeat:
        content["repeat"] = request.repeat
    encoded = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(encoded.encode()).digest()
