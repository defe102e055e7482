"""The settings of `[serving]` → a started AsyncLLM of vLLM 0.29."""

import json
import logging
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any, get_args

from vllm.config.lora import MaxLoRARanks
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.usage.usage_lib import UsageContext
from vllm.v1.engine.async_llm import AsyncLLM

from asclepius_ray.errors import ServingError
from asclepius_ray.serving.config import ServingConfig
from asclepius_ray.serving.engines.adapter_folder import ADAPTER_CONFIG_NAME, check_adapter_folder
from asclepius_ray.serving.engines.vllm_seeds import SeededDraws
from asclepius_ray.serving.engines.vllm_watch import SchedulerWatch

GPU_MEMORY_SHARE = 0.9
CPU_CACHE_GIB = 2.0
BYTES_PER_GIB = 1 << 30
_ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # a fork would copy the locks of the replica's threads
}


def start_vllm(folder: str, config: ServingConfig, gpu_share: float, adapters: Collection[str]) -> AsyncLLM:
    """Returns when the model is loaded, in processes of its own; a ServingError if it cannot be."""
    os.environ.update(_ENVIRONMENT)
    if Path(folder).is_dir():
        os.environ["HF_HUB_OFFLINE"] = "1"  # for the processes that are started; this one has read it
    logging.getLogger("vllm").setLevel(logging.WARNING)
    lora = _lora_settings(adapters) if adapters else {}
    try:
        arguments = AsyncEngineArgs(
            model=folder,
            skip_tokenizer_init=True,  # ids in, ids out
            generation_config="vllm",  # requests bring their own settings
            max_logprobs=-1,
            logits_processors=None if config.use_gpu else [SeededDraws],
            # The same on every replica; and as the other engine, which is compared with the export.
            dtype="auto" if config.use_gpu else "float32",
            max_model_len=config.max_context_tokens or None,
            tensor_parallel_size=config.tensor_parallel,
            # Inside of a Ray actor it would ask Ray for the GPUs that this replica already holds.
            distributed_executor_backend="mp" if config.tensor_parallel > 1 else None,
            gpu_memory_utilization=GPU_MEMORY_SHARE * gpu_share,
            kv_cache_memory_bytes=_cache_bytes(config),
            enable_log_requests=False,
            **lora,
        )
        # The defaults of vLLM's own API server.
        vllm_config = arguments.create_engine_config(UsageContext.OPENAI_API_SERVER)
        return AsyncLLM.from_vllm_config(
            vllm_config,
            usage_context=UsageContext.OPENAI_API_SERVER,
            stat_loggers=[SchedulerWatch],
            disable_log_stats=True,  # the watch is told all the same
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ServingError(
            f"{folder} cannot be loaded as a causal language model by vLLM: {reason(error)}"
        ) from None


def _cache_bytes(config: ServingConfig) -> int | None:
    if config.cache_gib:
        return int(config.cache_gib * BYTES_PER_GIB)
    return None if config.use_gpu else int(CPU_CACHE_GIB * BYTES_PER_GIB)


def _lora_settings(adapters: Collection[str]) -> dict[str, Any]:
    """Room for all of them at the same time, and one place that stays empty.

    On a CPU vLLM 0.29 takes a request without an adapter for one of the last place where it shares a batch
    with a request that has one: with the last place in use, the model itself would answer as that adapter.
    """
    ranks = [_rank(adapter) for adapter in adapters]
    fitting = [rank for rank in get_args(MaxLoRARanks) if rank >= max(ranks)]
    if not fitting:
        raise ServingError(
            f"an adapter of rank {max(ranks)} is more than vLLM takes ({max(get_args(MaxLoRARanks))}); "
            'set serving.engine = "transformers"'
        )
    return {"enable_lora": True, "max_loras": len(adapters) + 1, "max_lora_rank": min(fitting)}


def _rank(adapter: str) -> int:
    check_adapter_folder(adapter)
    settings = json.loads((Path(adapter) / ADAPTER_CONFIG_NAME).read_bytes())
    return max([int(settings["r"]), *(int(rank) for rank in (settings.get("rank_pattern") or {}).values())])


def reason(error: Exception) -> str:
    """vLLM's own processes write their reason to the log and tell this one only that they failed."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
