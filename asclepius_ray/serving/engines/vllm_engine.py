"""The engine on vLLM's AsyncLLM, on a CPU or over the GPUs of one replica; needs vLLM 0.29.

The model runs in processes of vLLM's own. This one hands ids over and takes ids back: text is made above.
"""

import asyncio
import concurrent.futures
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

import torch
import zmq
from vllm import SamplingParams
from vllm.exceptions import VLLMError
from vllm.inputs import tokens_input
from vllm.lora.request import LoRARequest
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.exceptions import EngineDeadError

from asclepius_ray.errors import ServingError
from asclepius_ray.serving.config import ServingConfig
from asclepius_ray.serving.engines.engine import (
    EngineError,
    EngineStats,
    GenerationRequest,
    TokenChunk,
    TokenLogprob,
    check_request,
    ended_error,
)
from asclepius_ray.serving.engines.logits_check import compare_logits, stored_logits
from asclepius_ray.serving.engines.vllm_fate import end_watch, end_with_this_process
from asclepius_ray.serving.engines.vllm_seeds import seeded_draw
from asclepius_ray.serving.engines.vllm_start import reason, start_vllm
from asclepius_ray.serving.engines.vllm_watch import scheduler_watch

logger = logging.getLogger(__name__)

LIVENESS_SECONDS = 0.5
STOP_SECONDS = 2.0
LARGEST_SEED = (1 << 63) - 1


class VllmEngine:
    """A causal language model of a local folder or a Hugging Face id; its streams are all of one loop."""

    def __init__(
        self,
        folder: str,
        end_token_ids: frozenset[int],
        config: ServingConfig,
        gpu_share: float = 1.0,
        adapters: Mapping[str, str] | None = None,
    ) -> None:
        """`adapters`: name → folder of a LoRA adapter as peft writes it; of each GPU it takes `gpu_share`."""
        adapters = adapters or {}
        self._folder = folder
        self._use_gpu = config.use_gpu
        self._llm = start_vllm(folder, config, gpu_share, adapters.values())
        processes = self._llm.engine_core.resources.engine_manager.processes
        self._fate = end_with_this_process(process.pid for process in processes)
        self._watch = scheduler_watch(self._llm)
        model = self._llm.model_config
        self._end_token_ids = end_token_ids | _generation_end_ids(model)
        self._max_context_tokens = int(model.max_model_len)
        self._num_embeddings = int(model.get_vocab_size())
        self._type: torch.dtype = model.dtype
        self._adapters = {
            name: LoRARequest(name, place, adapter)
            for place, (name, adapter) in enumerate(adapters.items(), start=1)
        }
        self._open: dict[str, asyncio.AbstractEventLoop] = {}
        self._generated_tokens = 0
        self._liveness: asyncio.Task[None] | None = None
        self._is_stopped = False

    @property
    def max_context_tokens(self) -> int:
        return self._max_context_tokens

    @property
    def end_token_ids(self) -> frozenset[int]:
        return self._end_token_ids

    @property
    def num_embeddings(self) -> int:
        return self._num_embeddings

    async def warm_up(self) -> None:
        try:
            for adapter in self._adapters.values():
                await self._llm.add_lora(adapter)
        except (VLLMError, ValueError, RuntimeError, OSError) as error:
            raise ServingError(
                f"vLLM cannot load its adapters onto {self._folder}: {reason(error)}"
            ) from None
        some_id = min(self._end_token_ids, default=0)
        async for _ in self.stream(GenerationRequest("warm-up", [some_id], max_new_tokens=1)):
            pass
        stored = stored_logits(self._folder)
        if stored is not None:
            rows, expected = stored
            found = [await self._next_logprobs(row, place) for place, row in enumerate(rows.tolist())]
            compare_logits(torch.stack(found), expected, self._type, self._folder)

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[TokenChunk, None]:
        check_request(request, self, self._adapters)
        self.check()
        self._open[request.request_id] = self._watch_over_streams()
        outputs = self._llm.generate(
            tokens_input(request.prompt_ids),
            self._sampling(request),
            request.request_id,
            lora_request=self._adapters.get(request.adapter),
        )
        try:
            async with aclosing(outputs):
                async for output in outputs:
                    [answer] = output.outputs
                    if request.request_id not in self._open:
                        return
                    if answer.token_ids:
                        self._generated_tokens += len(answer.token_ids)
                        yield TokenChunk(list(answer.token_ids), _logprobs(answer.logprobs, request))
                    if answer.finish_reason in ("abort", "error"):
                        raise EngineError("the engine could not finish this request")
        except EngineDeadError:
            raise ended_error() from None
        except VLLMError as error:
            # Its message may hold what the request held.
            raise EngineError(f"the engine could not finish this request ({type(error).__name__})") from None
        finally:
            self._open.pop(request.request_id, None)

    def cancel(self, request_id: str) -> None:
        loop = self._open.pop(request_id, None)
        if loop is not None:
            abort = asyncio.run_coroutine_threadsafe(self._llm.abort(request_id), loop)
            abort.add_done_callback(lambda done: _tell_failed_abort(done, request_id))

    def stats(self) -> EngineStats:
        """The scheduler's own numbers of its last step, and none where nobody waits for an answer."""
        cache = self._llm.vllm_config.cache_config
        is_idle = not self._llm.get_num_unfinished_requests()
        return EngineStats(
            running_requests=0 if is_idle else self._watch.running,
            generated_tokens=self._generated_tokens,
            waiting_requests=0 if is_idle else self._watch.waiting,
            cache_tokens=int(cache.num_gpu_blocks) * int(cache.block_size),
            cache_use=0.0 if is_idle else self._watch.cache_use,
            batch_requests=int(self._llm.vllm_config.scheduler_config.max_num_seqs),
        )

    def check(self) -> None:
        if self._is_stopped or self._llm.errored:
            raise ended_error()

    def stop(self) -> None:
        self._is_stopped = True
        self._fail_streams()
        self._llm.shutdown(timeout=STOP_SECONDS)
        end_watch(self._fate)
        _close_sockets(self._llm.engine_core.resources)

    def _sampling(self, request: GenerationRequest) -> SamplingParams:
        return SamplingParams(
            max_tokens=request.max_new_tokens,
            **self._choice(request),
            logprobs=request.top_logprobs,
            stop_token_ids=sorted(self._end_token_ids),
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
            skip_clone=True,
        )

    def _choice(self, request: GenerationRequest) -> dict[str, Any]:
        """The part of SamplingParams that says how the next token is chosen."""
        if request.is_greedy:
            return {"temperature": 0.0}
        if request.seed is None:
            return {"temperature": request.temperature, "top_p": request.top_p}
        if not self._use_gpu:
            return seeded_draw(request, request.seed)
        # vLLM's -1 is "no seed", and its seeds have 64 bits with a sign.
        seed = request.seed & LARGEST_SEED
        return {"temperature": request.temperature, "top_p": request.top_p, "seed": seed}

    async def _next_logprobs(self, row: list[int], place: int) -> torch.Tensor:
        """The log-probability of every id behind this row, (vocabulary)."""
        params = SamplingParams(
            max_tokens=1, temperature=0.0, logprobs=-1, detokenize=False, ignore_eos=True, flat_logprobs=True
        )
        found = torch.full((self._num_embeddings,), float("-inf"))
        async for output in self._llm.generate(tokens_input(row), params, f"reference row {place}"):
            flat: Any = output.outputs[0].logprobs
            found[torch.tensor(flat.token_ids)] = torch.tensor(flat.logprobs)
        return found

    def _watch_over_streams(self) -> asyncio.AbstractEventLoop:
        """The running loop, in which one task makes sure that no stream waits for an engine that died."""
        if self._liveness is None or self._liveness.done():
            self._liveness = asyncio.create_task(self._fail_streams_of_a_dead_engine())
        return asyncio.get_running_loop()

    async def _fail_streams_of_a_dead_engine(self) -> None:
        # vLLM wakes the streams where an engine process reports its failure, not where it was killed.
        while not self._llm.errored:
            await asyncio.sleep(LIVENESS_SECONDS)
        self._fail_streams()

    def _fail_streams(self) -> None:
        for loop in set(self._open.values()):
            loop.call_soon_threadsafe(self._llm.output_processor.propagate_error, EngineDeadError())


def _close_sockets(resources: Any) -> None:
    """Does what vLLM leaves to the loop of its streams, where that has ended: an open socket would keep this
    process from ending, for as long as it lasts."""
    reading = resources.output_queue_task
    if reading is not None and reading.get_loop().is_running():
        return
    for each in (resources.input_socket, resources.output_socket):
        # Not by its asyncio half, which would ask the ended loop.
        zmq.Socket.close(each, linger=0)


def _tell_failed_abort(abort: "concurrent.futures.Future[None]", request_id: str) -> None:
    """Its request would go on to its longest answer, for nobody."""
    if not abort.cancelled() and (error := abort.exception()) is not None:
        logger.error("request %s could not be cancelled (%s)", request_id, type(error).__name__)


def _logprobs(found: Any, request: GenerationRequest) -> tuple[TokenLogprob, ...] | None:
    """vLLM's for each new token: the chosen one's first, then the likeliest, each once."""
    count = request.top_logprobs
    if count is None:
        return None
    made = []
    for place in found:
        likeliest = sorted((one.rank, token_id, one.logprob) for token_id, one in place.items())
        top = tuple((token_id, logprob) for rank, token_id, logprob in likeliest if rank <= count)
        made.append(TokenLogprob(next(iter(place.values())).logprob, top[:count]))
    return tuple(made)


def _generation_end_ids(model: Any) -> frozenset[int]:
    found = model.try_get_generation_config().get("eos_token_id")
    return frozenset() if found is None else frozenset(found if isinstance(found, list) else [found])
