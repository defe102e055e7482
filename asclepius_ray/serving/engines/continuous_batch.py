"""One model under transformers' continuous batching: a thread steps it, event loops read what it makes.

The batching manager is an internal part of transformers 5.23; nothing outside this module knows it.
"""

import logging
import secrets
from asyncio import AbstractEventLoop
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.generation.configuration_utils import ContinuousBatchingConfig
from transformers.generation.continuous_batching import ContinuousBatchingManager
from transformers.generation.continuous_batching.continuous_api import OutputRouter
from transformers.generation.continuous_batching.model_runner import ModelRunner
from transformers.generation.continuous_batching.requests import GenerationOutput, RequestStatus

from asclepius_ray.serving.engines.engine import EngineError, GenerationRequest, TokenLogprob, ended_error
from asclepius_ray.serving.engines.request_attention import attend_by_request
from asclepius_ray.serving.engines.sampling import Draw, choose_tokens, token_logprobs, uniform_number
from asclepius_ray.serving.engines.token_buffer import TokenBuffer

STOP_TIMEOUT_SECONDS = 10.0

# Its warnings name ids of prompts.
logging.getLogger("ContinuousBatchingLogger").setLevel(logging.ERROR)


@dataclass
class _Asked:
    """A request that is being answered, and where its tokens go."""

    request: GenerationRequest
    seed: int
    buffer: TokenBuffer
    num_given: int = 0


class ContinuousBatch:
    """Answers the requests of one model together."""

    def __init__(
        self, model: Any, end_token_ids: frozenset[int], page_tokens: int, batching: ContinuousBatchingConfig
    ) -> None:
        self._end_token_ids = sorted(end_token_ids)
        self._page_tokens = page_tokens
        self._asked: dict[str, _Asked] = {}
        self._router = _TokenRouter(self._asked)
        self._manager = _Manager(model, batching, self._asked)
        self._manager.output_router = self._router
        # The cache is made here and not by the thread: its size is asked for, and it may not fit.
        self._manager.warmup()
        self._manager.start()

    def add(self, request: GenerationRequest) -> TokenBuffer:
        """Takes the request in; an EngineError when the batch has ended."""
        self.check()
        buffer = TokenBuffer(with_logprobs=request.top_logprobs is not None)
        seed = secrets.randbits(63) if request.seed is None else request.seed
        self._asked[request.request_id] = _Asked(request, seed, buffer)
        accepted = self._manager.add_request(
            input_ids=request.prompt_ids,
            request_id=request.request_id,
            max_new_tokens=request.max_new_tokens,
            streaming=True,
            eos_token_id=self._end_token_ids,
        )
        # What is taken in while the thread ends may never be looked at, so it is asked again.
        if accepted is None or self._manager.background_thread_status.can_accept_new_requests():
            self._asked.pop(request.request_id, None)  # the dying thread may have failed it already
            raise ended_error()
        return buffer

    def cancel(self, request_id: str) -> bool:
        """Frees what the request holds before the next step; False for one that is not here."""
        asked = self._asked.pop(request_id, None)
        if asked is None:
            return False
        asked.buffer.loop.call_soon_threadsafe(asked.buffer.discard)
        self._manager.cancel_request(request_id)
        return True

    @property
    def generated_tokens(self) -> int:
        return self._router.generated_tokens

    @property
    def num_running(self) -> int:
        """Requests that hold a part of the cache; a cancelled one until the step that drops it."""
        return len(self._active())

    @property
    def num_waiting(self) -> int:
        running = {state.request_id for state in self._active()}
        return sum(request_id not in running for request_id in list(self._asked))

    @property
    def cache_tokens(self) -> int:
        processor = self._manager.batch_processor
        return 0 if processor is None else int(processor.cache.num_blocks) * self._page_tokens

    @property
    def used_cache_tokens(self) -> int:
        """What the running requests hold; what is kept of finished ones makes room when it is needed."""
        return sum(state.current_len() for state in self._active())

    def check(self) -> None:
        status = self._manager.background_thread_status
        if not self._manager.is_running() or status.can_accept_new_requests() is not None:
            raise ended_error()

    def stop(self) -> None:
        self._manager.stop(block=True, timeout=STOP_TIMEOUT_SECONDS, hard_stop=True)
        self._manager.destroy()

    def _active(self) -> list[Any]:
        processor = self._manager.batch_processor
        return [] if processor is None else list(processor.scheduler.active_requests.values())


class _TokenRouter(OutputRouter):  # type: ignore[misc]
    """Hands each step's tokens to the streams that wait for them, and drops those of cancelled requests."""

    def __init__(self, asked: dict[str, _Asked]) -> None:
        super().__init__()
        self._asked = asked
        self.generated_tokens = 0

    def deliver(self, output: GenerationOutput) -> None:
        self.deliver_batch([output])

    def deliver_batch(self, outputs: list[GenerationOutput]) -> None:
        """Wakes each event loop once for all outputs of a step."""
        waiting: dict[AbstractEventLoop, list[_Delivery]] = {}
        for output in outputs:
            asked = self._asked.get(output.request_id)
            if asked is not None:
                waiting.setdefault(asked.buffer.loop, []).append(self._delivery(asked, output))
        for loop, deliveries in waiting.items():
            # A loop that was closed, as of a program that ends, has nobody who waits.
            if not loop.is_closed():
                loop.call_soon_threadsafe(_hand_over, deliveries)

    def _delivery(self, asked: _Asked, output: GenerationOutput) -> "_Delivery":
        ids = output.generated_tokens[asked.num_given :]
        logprobs = output.logprobs[asked.num_given :]
        asked.num_given += len(ids)
        self.generated_tokens += len(ids)
        if output.is_finished():
            self._asked.pop(output.request_id, None)
        return _Delivery(asked.buffer, ids, logprobs, output.status)


@dataclass(frozen=True)
class _Delivery:
    buffer: TokenBuffer
    ids: list[int]
    logprobs: list[TokenLogprob]
    status: RequestStatus


def _hand_over(deliveries: Sequence[_Delivery]) -> None:
    for delivery in deliveries:
        if delivery.status == RequestStatus.FAILED:
            delivery.buffer.fail(EngineError("the engine could not finish this request"))
            continue
        delivery.buffer.add(delivery.ids, delivery.logprobs)
        if delivery.status == RequestStatus.FINISHED:
            delivery.buffer.end()


class _Manager(ContinuousBatchingManager):  # type: ignore[misc]
    """The manager, with our own choice of the next tokens."""

    def __init__(self, model: Any, batching: ContinuousBatchingConfig, asked: dict[str, _Asked]) -> None:
        # -1: no end token of its own, every request brings ours. Nothing of this samples.
        generation = GenerationConfig(do_sample=False, eos_token_id=-1, max_new_tokens=1)
        with torch.no_grad():
            super().__init__(model, generation, batching)
        self._asked = asked

    def _create_batch_processor(self) -> Any:
        if self.model.device.type == "cpu":
            # Now that the manager has looked at the model's own way, which it would refuse otherwise.
            attend_by_request(self.model)
        processor = super()._create_batch_processor()
        processor.model_runner.__class__ = _Runner
        processor.model_runner.asked = self._asked
        return processor


class _Runner(ModelRunner):  # type: ignore[misc]
    """Chooses each request's next token as that request asks."""

    asked: dict[str, _Asked]

    def _sample(self, scores: torch.Tensor, output_ids: torch.Tensor) -> None:
        """`scores` are the raw logits (1, rows, vocabulary); rows behind those of new tokens mean nothing."""
        states = [
            future.state for future in self.inputs_and_outputs.requests_in_batch if future.has_new_token
        ]
        logits = scores[0, : len(states)]
        asked = [self.asked.get(state.request_id) for state in states]
        chosen = choose_tokens(logits, [_draw(*pair) for pair in zip(asked, states, strict=True)])
        output_ids[0, : len(states)].copy_(chosen)
        _note_logprobs(logits, chosen, asked, states)


def _draw(asked: _Asked | None, state: Any) -> Draw | None:
    """None for the likeliest token, and for a request that was cancelled in this step."""
    if asked is None or asked.request.is_greedy:
        return None
    # A request that lost its place in the cache begins anew with its answer as a part of its prompt.
    position = len(state.initial_tokens) + len(state.generated_tokens) - len(asked.request.prompt_ids)
    request = asked.request
    return Draw(request.temperature, request.top_p, uniform_number(asked.seed, position))


def _note_logprobs(
    logits: torch.Tensor, chosen: torch.Tensor, asked: Sequence[_Asked | None], states: Sequence[Any]
) -> None:
    """Puts them beside the tokens, where the manager keeps those that it could make itself."""
    wanted = {
        row: one.request.top_logprobs
        for row, one in enumerate(asked)
        if one is not None and one.request.top_logprobs is not None
    }
    if wanted:
        rows = torch.tensor(list(wanted), device=logits.device)
        for row, logprob in zip(
            wanted, token_logprobs(logits[rows], chosen[rows], list(wanted.values())), strict=True
        ):
            states[row].logprobs.append(logprob)
