"""Attention request by request: the same numbers as one attention with a mask over the others."""

import asyncio
from itertools import accumulate
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from asclepius_ray.serving.config import ServingConfig
from asclepius_ray.serving.engines.engine import GenerationRequest
from asclepius_ray.serving.engines.request_attention import NAME, attend_by_request, plan_groups
from asclepius_ray.serving.engines.start import start_engine

SHAPE = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 1024,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def whole_mask(query_lengths: list[int], key_lengths: list[int]) -> torch.Tensor:
    """What one attention of all queries over all keys may see."""
    blocks = [
        torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)
        for queries, keys in zip(query_lengths, key_lengths, strict=True)
    ]
    return torch.block_diag(*(block.int() for block in blocks)).bool()


@pytest.mark.parametrize(
    ("query_lengths", "key_lengths"),
    [
        ([1], [5]),
        ([1, 1, 1], [5, 1, 9]),
        ([1, 1, 7], [5, 300, 7]),
        ([1, 1, 3, 4], [5, 9, 8, 4]),
        ([2, 1], [2, 4]),
        ([1] * 9, [40] * 9),
    ],
)
@pytest.mark.parametrize("most_pairs", [0, 50, 10_000])
def test_the_groups_see_what_one_attention_of_all_would_see(
    query_lengths: list[int], key_lengths: list[int], most_pairs: int
) -> None:
    query_ends, key_ends = ([0, *accumulate(lengths)] for lengths in (query_lengths, key_lengths))
    seen = torch.zeros(query_ends[-1], key_ends[-1], dtype=torch.bool)
    for group in plan_groups(query_ends, key_ends, most_pairs):
        block = seen[group.queries, group.keys]
        causal = torch.ones_like(block).tril(block.shape[1] - block.shape[0])
        block |= causal if group.mask is None else group.mask
        if group.mask is not None and group.mask.shape[0] > 1 and most_pairs:
            assert group.mask.shape[0] in query_lengths or group.mask.numel() <= most_pairs
    assert torch.equal(seen, whole_mask(query_lengths, key_lengths))


@pytest.mark.parametrize("num_key_value_heads", [1, 2, 4])
def test_a_model_with_shared_key_heads_says_in_company_what_it_says_alone(
    tmp_path: Path, num_key_value_heads: int
) -> None:
    torch.manual_seed(3)
    model = LlamaForCausalLM(LlamaConfig(**SHAPE, num_key_value_heads=num_key_value_heads)).eval()
    model.save_pretrained(tmp_path)
    # One is longer than a step takes in at a time, so that it is read in pieces beside the others' answers.
    prompts = [
        [3 + (7 * number + at) % 90 for at in range(length)] for number, length in enumerate((4, 600, 33))
    ]
    alone = [
        model.generate(torch.tensor([ids]), max_new_tokens=20, do_sample=False)[0, len(ids) :].tolist()
        for ids in prompts
    ]
    engine = start_engine(ServingConfig(), str(tmp_path), frozenset({2}), 1.0, {})

    async def answer(number: int) -> list[int]:
        request = GenerationRequest(str(number), prompts[number], 20)
        return [token async for chunk in engine.stream(request) for token in chunk.ids]

    async def answer_all() -> list[list[int]]:
        return await asyncio.gather(*(answer(number) for number in range(len(prompts))))

    try:
        assert asyncio.run(answer_all()) == alone
        assert engine._batches[""]._manager.model.config._attn_implementation == NAME  # type: ignore[attr-defined]
    finally:
        engine.stop()


def test_a_model_with_a_sliding_window_keeps_its_own_attention() -> None:
    model = MistralForCausalLM(MistralConfig(**SHAPE, num_key_value_heads=2, sliding_window=16))
    before = model.config._attn_implementation
    attend_by_request(model)
    assert model.config._attn_implementation == before == "sdpa"
