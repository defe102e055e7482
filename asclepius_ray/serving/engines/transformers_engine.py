"""The engine on transformers' continuous batching, on a CPU or on one GPU.

Requests with different adapters cannot share a batch there. So each adapter is a copy of the model with the
adapter merged into it, in a batch of its own, and the memory of the cache is divided among them: for a few
adapters of a small model. vLLM holds the model once for all of them.
"""

import sys
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from transformers.generation.configuration_utils import ContinuousBatchingConfig

from asclepius_ray.serving.config import ServingConfig
from asclepius_ray.serving.engines.continuous_batch import ContinuousBatch
from asclepius_ray.serving.engines.engine import EngineStats, GenerationRequest, TokenChunk, check_request
from asclepius_ray.serving.engines.logits_check import check_logits
from asclepius_ray.serving.engines.transformers_model import (
    cache_bytes_per_token,
    configured_end_ids,
    context_tokens,
    load_model,
    merge_adapter,
)

PAGE_TOKENS = 32
CPU_BATCH_TOKENS = 256
GPU_BATCH_TOKENS = 4096
# Of a tiny model 32 at a time made 3,900 tokens/s, 16 made 2,800 and 64 made 4,000 (prompts of 110); with
# prompts of 400 it was 1,500 for each. More at a time only make each answer slower.
CPU_BATCH_REQUESTS = 32
GPU_BATCH_REQUESTS = 256
CPU_CACHE_GIB = 2.0
GPU_CACHE_SHARE = 0.8
SWITCH_SECONDS = 0.0001
"""For how long a thread of the replica keeps the interpreter from another that wants it. The step gives it up
at each of its operations and wants it back at once: with Python's own 5 ms, and still with 0.5, a busy
event loop let it through so rarely that 87 % of the peak were made at twice the load; with this, 92 to 96."""
BYTES_PER_GIB = 1 << 30


class TransformersEngine:
    """A causal language model of a local folder or a Hugging Face id."""

    def __init__(
        self,
        folder: str,
        end_token_ids: frozenset[int],
        config: ServingConfig,
        gpu_share: float = 1.0,
        adapters: Mapping[str, str] | None = None,
    ) -> None:
        """`adapters`: name → folder of a LoRA adapter as peft writes it; of the GPU it takes `gpu_share`."""
        sys.setswitchinterval(SWITCH_SECONDS)
        model = load_model(folder, config.use_gpu)
        check_logits(model, folder)
        self._end_token_ids = end_token_ids | configured_end_ids(model.generation_config)
        self._max_context_tokens = context_tokens(
            model.config.get_text_config(), folder, config.max_context_tokens
        )
        self._num_embeddings = int(model.get_input_embeddings().num_embeddings)
        self._batch_requests = GPU_BATCH_REQUESTS if config.use_gpu else CPU_BATCH_REQUESTS
        adapters = adapters or {}
        # All of them before the first batch takes its share of the memory that is left.
        models = {"": model} | {
            name: merge_adapter(load_model(folder, config.use_gpu), adapter)
            for name, adapter in adapters.items()
        }
        self._batches: dict[str, ContinuousBatch] = {}
        for place, (name, one) in enumerate(models.items()):
            share = gpu_share / (len(models) - place)
            batching = self._batching(one, config, share, len(models))
            self._batches[name] = ContinuousBatch(one, self._end_token_ids, PAGE_TOKENS, batching)

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
        for name in self._batches:
            some_id = min(self._end_token_ids, default=0)
            async for _ in self.stream(GenerationRequest(f"warm-up {name}", [some_id], 1, adapter=name)):
                pass

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[TokenChunk, None]:
        check_request(request, self, self._batches)
        buffer = self._batches[request.adapter].add(request)
        try:
            async for chunk in buffer.chunks():
                yield chunk
        finally:
            self.cancel(request.request_id)

    def cancel(self, request_id: str) -> None:
        any(batch.cancel(request_id) for batch in self._batches.values())

    def stats(self) -> EngineStats:
        each = {name: self._stats_of(batch) for name, batch in self._batches.items()}
        cache_tokens = sum(one.cache_tokens for one in each.values())
        used = sum(one.cache_use * one.cache_tokens for one in each.values())
        return EngineStats(
            running_requests=sum(one.running_requests for one in each.values()),
            generated_tokens=sum(one.generated_tokens for one in each.values()),
            waiting_requests=sum(one.waiting_requests for one in each.values()),
            cache_tokens=cache_tokens,
            cache_use=used / cache_tokens if cache_tokens else 0.0,
            batch_requests=sum(one.batch_requests for one in each.values()),
            by_adapter=each,
        )

    def _stats_of(self, batch: ContinuousBatch) -> EngineStats:
        cache_tokens = batch.cache_tokens
        return EngineStats(
            running_requests=batch.num_running,
            generated_tokens=batch.generated_tokens,
            waiting_requests=batch.num_waiting,
            cache_tokens=cache_tokens,
            cache_use=min(1.0, batch.used_cache_tokens / cache_tokens) if cache_tokens else 0.0,
            batch_requests=self._batch_requests,
        )

    def check(self) -> None:
        for batch in self._batches.values():
            batch.check()

    def stop(self) -> None:
        for batch in self._batches.values():
            batch.stop()

    def _batching(
        self, model: Any, config: ServingConfig, gpu_share: float, num_models: int
    ) -> ContinuousBatchingConfig:
        infer_cache = config.use_gpu and not config.cache_gib
        cache_bytes = (config.cache_gib or CPU_CACHE_GIB) * BYTES_PER_GIB / num_models
        # Batches made ahead of time (use_async_batching) would still hold a request that was cancelled, and
        # a CUDA graph could not choose tokens request by request.
        return ContinuousBatchingConfig(
            page_size=PAGE_TOKENS,
            num_blocks=None if infer_cache else self._cache_blocks(model, cache_bytes),
            max_batch_tokens=GPU_BATCH_TOKENS if config.use_gpu else CPU_BATCH_TOKENS,
            max_requests_per_batch=self._batch_requests,
            max_memory_percent=GPU_CACHE_SHARE * gpu_share if infer_cache else None,
            use_async_batching=False,
            use_cuda_graph=False,
        )

    def _cache_blocks(self, model: Any, cache_bytes: float) -> int:
        """Room for a full batch of the longest requests, within the memory limit; never less than for one."""
        per_token = cache_bytes_per_token(model.config.get_text_config(), model.dtype.itemsize)
        one_request = -(-self._max_context_tokens // PAGE_TOKENS) + 2
        full_batch = self._batch_requests * one_request
        return max(one_request, min(full_batch, int(cache_bytes // (per_token * PAGE_TOKENS))))
