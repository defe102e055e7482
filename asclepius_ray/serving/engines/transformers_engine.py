"""The engine on transformers' continuous batching: one thread steps the model, asyncio streams read it.

The batching manager is an internal part of transformers 5.23; nothing outside this module knows it.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, GenerationConfig
from transformers.generation.configuration_utils import ContinuousBatchingConfig
from transformers.generation.continuous_batching import ContinuousBatchingManager
from transformers.generation.continuous_batching.continuous_api import OutputRouter
from transformers.generation.continuous_batching.requests import GenerationOutput, RequestStatus
from transformers.utils.logging import disable_progress_bar

from asclepius_ray.errors import ServingError
from asclepius_ray.serving.engines.engine import EngineError, EngineStats, GenerationRequest, TokenChunk
from asclepius_ray.serving.engines.logits_check import check_logits

PAGE_TOKENS = 32
CPU_BATCH_TOKENS = 256
GPU_BATCH_TOKENS = 4096
# On a CPU the attention of a step covers the caches of all its requests, so that its cost grows with
# their square: 16 at a time made 560-620 tokens/s where 64 at a time made 370 (prompts of 300).
CPU_BATCH_REQUESTS = 16
GPU_BATCH_REQUESTS = 256
CPU_CACHE_BYTES = 2 << 30
GPU_CACHE_SHARE = 0.8
STOP_TIMEOUT_SECONDS = 10.0


class _TokenRouter(OutputRouter):  # type: ignore[misc]
    """Hands outputs to the stream that waits for them, and drops those of requests that were cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self._streams: dict[str, tuple[asyncio.AbstractEventLoop, asyncio.Queue[GenerationOutput]]] = {}
        self._streams_lock = threading.Lock()
        self.generated_tokens = 0

    def open(self, request_id: str) -> "asyncio.Queue[GenerationOutput]":
        queue: asyncio.Queue[GenerationOutput] = asyncio.Queue()
        with self._streams_lock:
            self._streams[request_id] = (asyncio.get_running_loop(), queue)
        return queue

    def close(self, request_id: str) -> None:
        with self._streams_lock:
            self._streams.pop(request_id, None)

    @property
    def num_open(self) -> int:
        return len(self._streams)

    def deliver(self, output: GenerationOutput) -> None:
        self.deliver_batch([output])

    def deliver_batch(self, outputs: list[GenerationOutput]) -> None:
        """Wakes each event loop once for all outputs of a step."""
        waiting: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Queue[Any], GenerationOutput]]] = {}
        with self._streams_lock:
            for output in outputs:
                self.generated_tokens += 1 if output.status != RequestStatus.FAILED else 0
                if output.request_id in self._streams:
                    loop, queue = self._streams[output.request_id]
                    waiting.setdefault(loop, []).append((queue, output))
        for loop, batch in waiting.items():
            loop.call_soon_threadsafe(_put_all, batch)


class TransformersEngine:
    """A causal language model of a local folder or a Hugging Face id, on CPU or on one GPU."""

    def __init__(self, model: str, end_token_ids: frozenset[int], use_gpu: bool, gpu_share: float) -> None:
        self._model = _load_model(model, use_gpu)
        if Path(model).is_dir():
            check_logits(self._model, Path(model))
        self._end_token_ids = end_token_ids | _configured_end_ids(self._model.generation_config)
        self._max_context_tokens = _context_tokens(self._model.config.get_text_config(), model)
        self._router = _TokenRouter()
        self._manager = self._start_manager(use_gpu, gpu_share)

    @property
    def max_context_tokens(self) -> int:
        return self._max_context_tokens

    @property
    def end_token_ids(self) -> frozenset[int]:
        return self._end_token_ids

    @property
    def num_embeddings(self) -> int:
        """Ids that the model knows: a larger one would end the engine, not only its request."""
        return int(self._model.get_input_embeddings().num_embeddings)

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[TokenChunk, None]:
        queue = self._router.open(request.request_id)
        try:
            self._add(request)
            num_seen = 0
            while True:
                output = await queue.get()
                while not queue.empty():
                    output = queue.get_nowait()
                if output.status == RequestStatus.FAILED:
                    raise EngineError("the engine could not finish this request")
                new_ids = output.generated_tokens[num_seen:]
                num_seen += len(new_ids)
                if new_ids:
                    yield TokenChunk(new_ids)
                if output.status == RequestStatus.FINISHED:
                    return
        finally:
            self.cancel(request.request_id)

    def cancel(self, request_id: str) -> None:
        self._router.close(request_id)
        self._manager.cancel_request(request_id)

    def stats(self) -> EngineStats:
        return EngineStats(self._router.num_open, self._router.generated_tokens)

    def check(self) -> None:
        if not self._manager.is_running():
            raise EngineError("the engine has ended; its replica must be started anew")

    def stop(self) -> None:
        self._manager.stop(block=True, timeout=STOP_TIMEOUT_SECONDS, hard_stop=True)
        self._manager.destroy()

    def _add(self, request: GenerationRequest) -> None:
        # The manager samples every request of a batch. top_p = 0 leaves one token to sample from, the
        # likeliest (temperature alone would leave two on a tie), so greedy requests share the batch.
        accepted = self._manager.add_request(
            input_ids=request.prompt_ids,
            request_id=request.request_id,
            max_new_tokens=request.max_new_tokens,
            streaming=True,
            eos_token_id=sorted(self._end_token_ids),
            temperature=1.0 if request.is_greedy else float(request.temperature),
            top_p=0.0 if request.is_greedy else float(request.top_p),
        )
        if accepted is None:
            raise EngineError("the engine has ended; its replica must be started anew")

    def _start_manager(self, use_gpu: bool, gpu_share: float) -> ContinuousBatchingManager:
        # A processor is made only for a setting that differs from its neutral value; every request
        # brings its own values, so these two are never used.
        generation = GenerationConfig(
            do_sample=True, temperature=0.5, top_p=0.5, top_k=0, eos_token_id=-1, max_new_tokens=1
        )
        manager: ContinuousBatchingManager = self._model.init_continuous_batching(
            generation_config=generation, continuous_batching_config=self._batching(use_gpu, gpu_share)
        )
        manager.output_router = self._router
        manager.start()
        return manager

    def _batching(self, use_gpu: bool, gpu_share: float) -> ContinuousBatchingConfig:
        # Batches made ahead of time (use_async_batching) would still hold a request that was cancelled.
        return ContinuousBatchingConfig(
            page_size=PAGE_TOKENS,
            num_blocks=None if use_gpu else self._cpu_cache_blocks(),
            max_batch_tokens=GPU_BATCH_TOKENS if use_gpu else CPU_BATCH_TOKENS,
            max_requests_per_batch=GPU_BATCH_REQUESTS if use_gpu else CPU_BATCH_REQUESTS,
            max_memory_percent=GPU_CACHE_SHARE * gpu_share if use_gpu else None,
            per_request_processors=True,
            use_async_batching=False,
        )

    def _cpu_cache_blocks(self) -> int:
        """Room for a full batch of the longest requests, within the memory limit; never less than for one."""
        config = self._model.config.get_text_config()
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        block_bytes = 2 * config.num_hidden_layers * heads * head_size * 4 * PAGE_TOKENS
        one_request = -(-self._max_context_tokens // PAGE_TOKENS) + 2
        affordable = int(CPU_CACHE_BYTES // block_bytes)
        return max(one_request, min(CPU_BATCH_REQUESTS * one_request, affordable))


def _put_all(batch: "list[tuple[asyncio.Queue[Any], GenerationOutput]]") -> None:
    for queue, output in batch:
        queue.put_nowait(output)


def _load_model(model: str, use_gpu: bool) -> Any:
    if use_gpu and not torch.cuda.is_available():
        raise ServingError(
            f"{model} was to be served on a GPU, but torch sees none; set serving.use_gpu = false"
        )
    disable_progress_bar()
    try:
        loaded = AutoModelForCausalLM.from_pretrained(
            model, dtype="auto" if use_gpu else torch.float32, local_files_only=Path(model).is_dir()
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ServingError(f"{model} cannot be loaded as a causal language model: {first_line}") from None
    return loaded.to("cuda") if use_gpu else loaded


def _context_tokens(config: Any, model: str) -> int:
    found = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    if not found:
        raise ServingError(f"{model} does not say how long its context is (max_position_embeddings)")
    return int(found)


def _configured_end_ids(config: Any) -> frozenset[int]:
    found = config.eos_token_id
    return frozenset() if found is None else frozenset(found if isinstance(found, list) else [found])
