"""Tiny language models of which it is known beforehand what they say."""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from asclepius_ray.tokens.chat_template import ensure_chat_template
from asclepius_ray.tokens.tokenizer import train_tokenizer

HIDDEN_SIZE = 512
TEXTS = ["A 63-year-old man was admitted with chest pain and dyspnea. Troponin was 2.4 ng/mL."]
LOGIT = 40.0


def save_reciting_model(folder: Path, pieces: Sequence[str], context_tokens: int, ends: bool = True) -> Path:
    """Whatever it is asked, it says these pieces in their order; then it ends, or begins anew.

    It knows of each token what follows, and of nothing else, so no piece may occur twice. A piece with
    letters beyond ASCII must hold a space: alone, the vocabulary would read them as bytes.
    """
    assert len(set(pieces)) == len(pieces)
    tokenizer = train_tokenizer(TEXTS * 4, vocabulary_size=420)
    ensure_chat_template(tokenizer)
    tokenizer.add_tokens(list(pieces))
    ids = [tokenizer.convert_tokens_to_ids(piece) for piece in pieces]
    assert tokenizer.decode(ids) == "".join(pieces)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=HIDDEN_SIZE, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=8, num_key_value_heads=1, max_position_embeddings=context_tokens,
        tie_word_embeddings=False,
        **{name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")},
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    follows = torch.zeros(len(tokenizer), HIDDEN_SIZE)
    # Whatever the last token of a prompt is, the first piece comes next.
    follows[ids[0], :] = LOGIT
    for here, next_id in zip(ids, [*ids[1:], tokenizer.eos_token_id if ends else ids[0]], strict=True):
        follows[:, here] = 0.0
        follows[next_id, here] = LOGIT
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(torch.eye(len(tokenizer), HIDDEN_SIZE))
        model.lm_head.weight.copy_(follows / HIDDEN_SIZE**0.5)
        # The layer adds nothing.
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def streamed_body(model: str, tokens: int) -> dict[str, object]:
    """What asks such a model for a stream of so many tokens, and for its usage at the end."""
    return {
        "model": model,
        "messages": [{"role": "user", "content": "chest pain"}],
        "max_tokens": tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
