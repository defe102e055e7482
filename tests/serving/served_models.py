"""Tiny Llama models with tokenizers of their own, made on the spot, and how a test asks them."""

import os
from pathlib import Path
from typing import Any

import torch
from tokenizers.processors import TemplateProcessing
from transformers import LlamaConfig, LlamaForCausalLM

from asclepius_ray.tokens.chat_template import ensure_chat_template
from asclepius_ray.tokens.tokenizer import train_tokenizer

TEXTS = [
    "A 63-year-old man was admitted with chest pain and dyspnea. Troponin was 2.4 ng/mL.",
    "Discharge medications: aspirin 81 mg daily, metoprolol 25 mg twice daily; follow-up in 2 weeks.",
    "The patient's temperature was 38.5 °C, müde and naïve; CT showed a 3 cm lesion in segment VII.",
]
CONTEXT_TOKENS = 2048
CANARY = "zebrafinch-canary"
LONG_ANSWER = [{"role": "user", "content": f"{CANARY}: chest pain and dyspnea"}]
SHORT_ANSWER = [{"role": "user", "content": "end soon"}]

API_KEY = "test-key-nothing-secret-4711"
MAX_NEW_TOKENS = 48
ENGINE = os.environ.get("ASCLEPIUS_TEST_ENGINE", "transformers")
"""What serves in the tests over HTTP: `make test-vllm` asks for the other one."""


def save_tiny_model(folder: Path, seed: int) -> Path:
    """A Llama of random weights, strong enough for its greedy answers to vary, and its tokenizer."""
    tokenizer = train_tokenizer(TEXTS * 4, vocabulary_size=420)
    ensure_chat_template(tokenizer)
    # As Llama's does: where special tokens are added to a rendered chat, it would begin twice.
    begin = (tokenizer.bos_token, tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{begin[0]} $A", special_tokens=[begin]
    )
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,  # vLLM's attention on CPUs takes heads of 32 and more
        num_key_value_heads=1,
        max_position_embeddings=CONTEXT_TOKENS,
        initializer_range=0.3,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    # A random model hardly ever ends an answer: what it says in fifth place becomes an end token too.
    said = generate_greedily(folder, chat_ids(tokenizer, SHORT_ANSWER), 20)
    not_said = generate_greedily(folder, chat_ids(tokenizer, LONG_ANSWER), 60)
    end = next(token for token in said[4:] if token not in not_said)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, end]
    model.save_pretrained(folder)
    return folder


def chat_ids(tokenizer: Any, turns: list[dict[str, str]]) -> list[int]:
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def generate_greedily(folder: Path, prompt_ids: list[int], max_new_tokens: int) -> list[int]:
    """What the model itself says, without any server."""
    model = LlamaForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        whole: Any = model.generate(
            torch.tensor([prompt_ids]), max_new_tokens=max_new_tokens, do_sample=False
        )
    return [int(token) for token in whole[0, len(prompt_ids) :]]
