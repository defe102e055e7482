"""A folder or a Hugging Face id → a model in memory, alone or merged with a LoRA adapter."""

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

from asclepius_ray.errors import ServingError, first_line
from asclepius_ray.serving.engines.adapter_folder import check_adapter_folder

_LOADING_ERRORS = (OSError, ValueError, RuntimeError, KeyError, SafetensorError)


def load_model(folder: str, use_gpu: bool) -> Any:
    """In 32 bits on a CPU, in its own type on a GPU; a ServingError if it is no causal language model."""
    if use_gpu and not torch.cuda.is_available():
        raise ServingError(
            f"{folder} was to be served on a GPU, but torch sees none; set serving.use_gpu = false"
        )
    disable_progress_bar()
    try:
        loaded = AutoModelForCausalLM.from_pretrained(
            folder, dtype="auto" if use_gpu else torch.float32, local_files_only=Path(folder).is_dir()
        )
    except _LOADING_ERRORS as error:
        raise ServingError(
            f"{folder} cannot be loaded as a causal language model: {first_line(error)}"
        ) from None
    return loaded.to("cuda") if use_gpu else loaded


def merge_adapter(model: Any, adapter: str) -> Any:
    """The model with the adapter of this folder added to its weights; the model itself is used up."""
    check_adapter_folder(adapter)
    try:
        return PeftModel.from_pretrained(model, adapter).merge_and_unload(safe_merge=True)
    except _LOADING_ERRORS as error:
        raise ServingError(
            f"the adapter {adapter} cannot be loaded onto this model: {first_line(error)}"
        ) from None


def context_tokens(config: Any, folder: str, at_most: int) -> int:
    """Positions of the model's own, or fewer where `at_most` is not 0; a ServingError where it is more."""
    found = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    if not found:
        raise ServingError(f"{folder} does not say how long its context is (max_position_embeddings)")
    if at_most > int(found):
        raise ServingError(
            f"serving.max_context_tokens = {at_most}, but {folder} has {int(found)} positions; lower it, or "
            "leave it at 0 for all that the model has"
        )
    return at_most or int(found)


def configured_end_ids(generation_config: Any) -> frozenset[int]:
    found = generation_config.eos_token_id
    return frozenset() if found is None else frozenset(found if isinstance(found, list) else [found])


def cache_bytes_per_token(config: Any, element_bytes: int) -> int:
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * head_size * element_bytes)
