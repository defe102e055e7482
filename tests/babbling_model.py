"""A tiny language model whose every answer is of known length and made of known words, and never the same."""

import random
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from asclepius_ray.tokens.chat_template import ensure_chat_template
from asclepius_ray.tokens.tokenizer import train_tokenizer

NUM_WORDS = 12
CHOICES = 6
LOGIT = 40.0


def save_babbling_model(folder: Path, texts: list[str]) -> None:
    """It knows of each token what may follow, and of nothing else: twelve words of `texts`, then the end.

    Where it stands among the twelve is told by the word itself, so that no word stands in two places.
    """
    tokenizer = train_tokenizer(texts, vocabulary_size=1000)
    ensure_chat_template(tokenizer)
    size = len(tokenizer)
    vocabulary = tokenizer.get_vocab()
    # A space before each: the vocabulary writes it as that letter.
    words = sorted(token for token in vocabulary if token[1:].isalpha() and token[0] == "\u0120")
    words = random.Random(3).sample([word for word in words if len(word) > 3], NUM_WORDS * CHOICES)
    places = [[vocabulary[word] for word in words[at::NUM_WORDS]] for at in range(NUM_WORDS)]
    config = LlamaConfig(
        vocab_size=size, hidden_size=1024, intermediate_size=64, num_hidden_layers=1, num_attention_heads=8,
        num_key_value_heads=1, max_position_embeddings=8192, tie_word_embeddings=False,
        **{name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")},
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    follows = torch.zeros(size, config.hidden_size)
    # Whatever the last token of a prompt is, one of the first words comes next.
    follows[places[0], :] = LOGIT
    for here, following in zip(places, [*places[1:], [tokenizer.eos_token_id]], strict=True):
        follows[:, here] = 0.0
        for token in here:
            follows[following, token] = LOGIT
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(torch.eye(size, config.hidden_size))
        model.lm_head.weight.copy_(follows / config.hidden_size**0.5)
        # The layer adds nothing.
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
