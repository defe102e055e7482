"""The attention of a step of continuous batching on a CPU: each request over its own cache, or a few at once.

transformers' own way there is one attention of all queries over the caches of all requests, with a mask over
what is not theirs: its cost grows with the square of the requests, and a prompt that comes in between holds
up all answers. To attend to each request by itself costs a call for each. So the queries of a step are cut
into groups: a prompt is one of its own, answers go together as long as that is cheaper than a call.
"""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

REPLACED = "sdpa"
NAME = "asclepius_by_request"
MOST_PAIRS = 8_000
"""Of queries and keys in one group of answers: up to there a common call costs less than one for each."""


@dataclass(frozen=True)
class _Group:
    """Neighbouring queries and the keys of their requests; without a mask the queries are causal."""

    queries: slice
    keys: slice
    mask: torch.Tensor | None


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
    AttentionInterface.register(NAME, _Attention())
    model.set_attn_implementation(NAME)


def plan_groups(query_ends: Sequence[int], key_ends: Sequence[int], most_pairs: int) -> Iterator[_Group]:
    """The groups of a step. The ends begin with 0; a request's queries are the last ones of its keys."""
    spans = list(zip(pairwise(query_ends), pairwise(key_ends), strict=True))
    at = 0
    while at < len(spans):
        (first, last), (start, end) = spans[at]
        beyond = at + 1
        while last - first == beyond - at and beyond < len(spans):
            (_, next_last), (_, next_end) = spans[beyond]
            if next_last - last != 1 or (next_last - first) * (next_end - start) > most_pairs:
                break
            last, end, beyond = next_last, next_end, beyond + 1
        mask = _mask_of([keys for _, keys in spans[at:beyond]], last - first)
        yield _Group(slice(first, last), slice(start, end), mask)
        at = beyond


def _mask_of(spans: Sequence[tuple[int, int]], num_queries: int) -> torch.Tensor | None:
    """True where a query sees a key: (queries, keys); None where plain causality says it."""
    first, last = spans[0][0], spans[-1][1]
    if len(spans) == 1:
        num_keys = last - first
        if num_queries in (1, num_keys):
            return None
        return torch.ones(num_queries, num_keys, dtype=torch.bool).tril(num_keys - num_queries)
    mask = torch.zeros(num_queries, last - first, dtype=torch.bool)
    for row, (start, end) in enumerate(spans):
        mask[row, start - first : end - first] = True
    return mask


class _Attention(threading.local):
    """An attention function of transformers; the groups of a step are the same for all its layers.

    Each batch has a thread, and all of them share this one function.
    """

    def __init__(self) -> None:
        self._ends: tuple[list[int], list[int]] = ([], [])
        self._groups: list[_Group] = []

    def __call__(
        self,
        module: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        scaling: float | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, None]:
        """query (1, heads, queries, size), keys and values likewise → (1, queries, heads, size).

        A ValueError for what a model asks of its attention beyond that.
        """
        cache = kwargs.get("cache")
        if cache is None:  # a forward pass outside of the batch
            found, _ = sdpa_attention_forward(
                module, query, key, value, attention_mask, scaling=scaling, **kwargs
            )
            return found, None
        for name in ("softcap", "position_bias"):
            if kwargs.get(name) is not None:
                raise ValueError(f"this model's attention needs {name}, which is not supported here")
        key, value = cache.update(
            key_states=key, value_states=value, layer_idx=module.layer_idx, kwargs=kwargs
        )
        ends = (kwargs["cu_seq_lens_q"].tolist(), kwargs["cu_seq_lens_k"].tolist())
        if ends != self._ends:
            self._ends, self._groups = ends, list(plan_groups(*ends, MOST_PAIRS))
        shared = int(getattr(module, "num_key_value_groups", 1))
        attended = [
            _attend(
                query[:, :, group.queries],
                key[:, :, group.keys],
                value[:, :, group.keys],
                group.mask,
                shared,
                scaling,
            )
            for group in self._groups
        ]
        whole = attended[0] if len(attended) == 1 else torch.cat(attended, dim=2)
        return whole.transpose(1, 2), None


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    shared: int,
    scaling: float | None,
) -> torch.Tensor:
    """(1, heads, queries, size); so many heads of the queries share one of the keys."""
    num_queries = query.shape[2]
    if mask is None and num_queries > 1:
        key, value = repeat_kv(key, shared), repeat_kv(value, shared)
        return scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling)
    if shared > 1:
        # The queries of the heads that share a key take the places of several queries.
        packed = query.reshape(1, key.shape[1], shared * num_queries, query.shape[3])
        tiled = None if mask is None else mask.repeat(shared, 1)
        found = scaled_dot_product_attention(packed, key, value, attn_mask=tiled, scale=scaling)
        return found.reshape(query.shape)
    return scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling)
