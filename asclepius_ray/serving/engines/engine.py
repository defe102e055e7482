"""The seam to an engine: token ids in, a stream of token ids out; nothing here knows of text or HTTP."""

from collections.abc import AsyncGenerator, Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from asclepius_ray.errors import InputError, ServingError

GREEDY_BELOW_TEMPERATURE = 0.01
"""A smaller temperature is greedy: dividing the logits by it would overflow before it changed a choice."""


@dataclass(frozen=True)
class GenerationRequest:
    """What an engine is asked for; temperature 0 is greedy."""

    request_id: str
    prompt_ids: list[int]
    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    """The same seed gives a request that runs alone the same tokens again; None draws one."""
    top_logprobs: int | None = None
    """With the log-probability of each token and of so many likeliest ones; None = without any."""
    adapter: str = ""
    """The name of a LoRA adapter that the engine was started with; empty = the model itself."""

    @property
    def is_greedy(self) -> bool:
        """The likeliest token each time, the first of equals."""
        return self.temperature < GREEDY_BELOW_TEMPERATURE or self.top_p <= 0.0


@dataclass(frozen=True)
class TokenLogprob:
    """The natural log-probability of a token under the model's own distribution, before any sampling."""

    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    """The likeliest ids at this place with theirs, the likeliest first."""


@dataclass(frozen=True)
class TokenChunk:
    """New tokens of one answer, in order."""

    ids: list[int]
    logprobs: tuple[TokenLogprob, ...] | None = None
    """One for each id where the request asked for them."""


@dataclass(frozen=True)
class EngineStats:
    """What an engine is doing now, and all tokens that it has made since it started."""

    running_requests: int
    generated_tokens: int
    waiting_requests: int = 0
    """Taken in, and without a place in a batch yet."""
    cache_tokens: int = 0
    """How many tokens the cache of keys and values holds."""
    cache_use: float = 0.0
    """The share of it that is in use, from 0 to 1."""
    batch_requests: int = 0
    """How many requests run at a time at most: without it admission would take in more than the engine works
    on, and every answer would be late (tests/drills/test_overload.py)."""
    by_adapter: Mapping[str, "EngineStats"] = field(default_factory=dict)
    """The same of each batch, "" = of the model itself, where an adapter's requests share none with others;
    empty = one batch for all."""


class EngineError(ServingError):
    """The engine failed while it answered; the message holds no text of the request."""


def ended_error() -> EngineError:
    """What every engine says when it can answer nothing any more."""
    return EngineError("the engine has ended; its replica must be started anew")


class Engine(Protocol):
    """A loaded model that answers many requests at the same time."""

    @property
    def max_context_tokens(self) -> int:
        """Positions of one request: its prompt and its answer together."""

    @property
    def num_embeddings(self) -> int:
        """How many ids the model knows; a prompt with a larger one is refused."""

    @property
    def end_token_ids(self) -> frozenset[int]:
        """The ids that end an answer; the engine yields the one that it stopped at."""

    async def warm_up(self) -> None:
        """Makes a first token, in the event loop that will read the streams.

        Raises ServingError where the model does not say what it said when the training exported it.
        """

    def stream(self, request: GenerationRequest) -> AsyncGenerator[TokenChunk, None]:
        """Yields new ids as they come, several at once when the reader lags; closing it cancels.

        Raises EngineError when the engine fails or no longer takes requests, InputError for a request that
        it cannot take (`check_request`). Two requests at a time must not have the same request_id.
        """

    def cancel(self, request_id: str) -> None:
        """Frees what a request holds; its stream ends and yields nothing more. Unknown ids are ignored."""

    def stats(self) -> EngineStats: ...

    def check(self) -> None:
        """Raises EngineError when the engine can answer nothing any more."""

    def stop(self) -> None:
        """Ends the engine at once; running requests fail."""


def check_request(request: GenerationRequest, engine: Engine, adapters: Collection[str]) -> None:
    """An InputError for a request that would end the engine, and every other request with it."""
    prompt_tokens = len(request.prompt_ids)
    if not prompt_tokens or request.max_new_tokens < 1:
        raise InputError(
            f"a prompt of {prompt_tokens} tokens and an answer of {request.max_new_tokens}: each needs one"
        )
    if prompt_tokens + request.max_new_tokens > engine.max_context_tokens:
        raise InputError(
            f"a prompt of {prompt_tokens} tokens and an answer of up to {request.max_new_tokens} do not fit "
            f"into the context of {engine.max_context_tokens}; shorten one of them"
        )
    if not 0 <= min(request.prompt_ids) <= max(request.prompt_ids) < engine.num_embeddings:
        raise InputError(f"the prompt holds an id that is not one of the model's {engine.num_embeddings}")
    if request.adapter and request.adapter not in adapters:
        raise InputError(f"the engine has no adapter {request.adapter!r}; it has {sorted(adapters)}")
