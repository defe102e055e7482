"""The attention of a step of continuous batching on a CPU: each request over its own cache alone.

transformers' own way there is one attention of all queries over the caches of all requests, with a mask over
what is not theirs, so that the cost of a step grows with the square of its requests, and a prompt that comes
in between holds up all answers (tests/benchmarks/test_attention.py).
"""

from itertools import pairwise
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import pack_gqa, repeat_kv, sdpa_attention_forward

REPLACED = "sdpa"
NAME = "asclepius_by_request"


def attend_by_request(model: Any) -> None:
    """Lets the model attend so from now on, unless it attends in another way than `sdpa` does.

    Layers with a sliding window keep theirs: what they read of the cache is not each request's whole text.
    """
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if config._attn_implementation != REPLACED or kinds != {"full_attention"}:
        return
    if getattr(config, "layer_types", None) is None and getattr(config, "sliding_window", None):
        return
    AttentionInterface.register(NAME, _attend)
    model.set_attn_implementation(NAME)


def _attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """query (1, heads, queries, size), key and value (1, key heads, queries, size) → (1, queries, heads, size).

    A ValueError for what a model asks of its attention beyond that.
    """
    cache = kwargs.get("cache")
    if cache is None:  # a forward pass outside of the batch
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    for name in ("softcap", "position_bias"):
        if kwargs.get(name) is not None:
            raise ValueError(f"this model's attention needs {name}, which is not supported here")
    key, value = cache.update(
        key_states=key, value_states=value, layer_idx=module.layer_idx, kwargs=kwargs
    )
    queries = pairwise(kwargs["cu_seq_lens_q"].tolist())
    keys = pairwise(kwargs["cu_seq_lens_k"].tolist())
    groups = int(getattr(module, "num_key_value_groups", 1))
    attended = [
        _attend_one(query[:, :, first:last], key[:, :, start:end], value[:, :, start:end], groups, scaling)
        for (first, last), (start, end) in zip(queries, keys, strict=True)
    ]
    return torch.cat(attended, dim=2).transpose(1, 2), None


def _attend_one(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, groups: int, scaling: float | None
) -> torch.Tensor:
    """One request's new positions, which are the last ones of its keys: (1, heads, queries, size)."""
    num_queries, num_keys = query.shape[2], key.shape[2]
    if num_queries == 1:
        # The queries of the heads that share a key take the places of several queries.
        packed = pack_gqa(query, groups)
        found = scaled_dot_product_attention(packed, key, value, scale=scaling)
        return found.reshape(query.shape)
    mask = None
    if num_queries < num_keys:
        mask = query.new_ones(num_queries, num_keys, dtype=torch.bool).tril(num_keys - num_queries)
    return scaled_dot_product_attention(
        query,
        repeat_kv(key, groups),
        repeat_kv(value, groups),
        attn_mask=mask,
        is_causal=mask is None,
        scale=scaling,
    )
