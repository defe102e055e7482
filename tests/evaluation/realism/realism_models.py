"""Tiny models that read at most 48 tokens: one of random weights, one that has read some texts often."""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from asclepius_ray.evaluation.perplexity import Reader
from asclepius_ray.tokens.tokenizer import train_tokenizer

CONTEXT_TOKENS = 48
NOTES = [
    f"Hospital course: the patient number {number} was admitted with fever and cough. She was given "
    f"{number * 10} mg of amoxicillin and went home well on day {number}. Follow up in clinic."
    for number in range(1, 25)
]
POEMS = [
    f"Green rivers sing to {number} sleeping stones, while winds of amber paint the hollow sky; no clock may "
    f"count the {number} feathers of a song that every lantern hums."
    for number in range(1, 25)
]


def make_tokenizer(*, with_begin: bool = True) -> PreTrainedTokenizerBase:
    tokenizer = train_tokenizer([*NOTES, *POEMS], 400)
    if not with_begin:
        tokenizer.bos_token = None
    return tokenizer


def make_model(tokenizer: PreTrainedTokenizerBase, seed: int = 5) -> LlamaForCausalLM:
    """Random weights that are large enough for each token to have a probability of its own."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT_TOKENS,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config).eval()


def make_reader(context_tokens: int, stride_tokens: int, *, with_begin: bool = True) -> Reader:
    tokenizer = make_tokenizer(with_begin=with_begin)
    return Reader(make_model(tokenizer), tokenizer, context_tokens, stride_tokens)


def save_model_that_has_read(texts: Sequence[str], folder: Path) -> None:
    """A model folder that finds such texts likely, and others not."""
    tokenizer = make_tokenizer()
    model = make_model(tokenizer).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    ids = [tokenizer(text)["input_ids"][:CONTEXT_TOKENS] for text in texts]
    shortest = min(map(len, ids))
    rows = torch.tensor([row[:shortest] for row in ids])
    for _ in range(60):
        loss = model(input_ids=rows, labels=rows).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
