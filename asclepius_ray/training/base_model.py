"""The untrained start → `base_model/`: a Hugging Face folder with safetensors, tokenizer and chat template.

Made from the notes for "tiny", else loaded from a Hugging Face id, a folder or a URI.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.logging import disable_progress_bar

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import ConfigError
from asclepius_ray.tokens.chat_template import ensure_chat_template
from asclepius_ray.tokens.rendering import end_token_id
from asclepius_ray.tokens.tokenizer import train_tokenizer
from asclepius_ray.training.base_model_source import source_folder
from asclepius_ray.training.config import TINY, TinyConfig, TrainingConfig


def prepare_base_model(
    root: Folder, training: TrainingConfig, sequence_length: int, seed: int, token: str
) -> dict[str, Any]:
    """Writes all files of `base_model/` but the manifest; returns the manifest's details.

    `token` opens gated models of the Hugging Face hub; "" for none.
    """
    disable_progress_bar()
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch)
        if training.base_model == TINY:
            model, tokenizer = make_tiny_model(root.child("notes"), training.tiny, sequence_length, seed)
        else:
            with source_folder(training.base_model, token) as source:
                model, tokenizer = _load(training.base_model, source)
        details = fit_together(training.base_model, model, tokenizer, sequence_length)
        model.save_pretrained(target, max_shard_size="5GB")
        weights_and_configs = {file.name for file in target.iterdir()}
        tokenizer.save_pretrained(target)
        details["tokenizer_files"] = sorted(
            file.name for file in target.iterdir() if file.name not in weights_and_configs
        )
        root.child("base_model").upload(target)
    return details


def make_tiny_model(
    notes: Folder, tiny: TinyConfig, sequence_length: int, seed: int
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A small Llama with random weights and a tokenizer learnt from the train notes."""
    tokenizer = train_tokenizer(_train_notes(notes), tiny.vocabulary_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(tiny_config(tiny, tokenizer, sequence_length)), tokenizer


def tiny_config(tiny: TinyConfig, tokenizer: PreTrainedTokenizerBase, sequence_length: int) -> LlamaConfig:
    """The shape of the model that is made from scratch."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=tiny.hidden_size,
        intermediate_size=tiny.hidden_size * 8 // 3,
        num_hidden_layers=tiny.layers,
        num_attention_heads=tiny.heads,
        num_key_value_heads=tiny.heads,
        max_position_embeddings=sequence_length,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _train_notes(notes: Folder) -> Iterator[str]:
    filesystem, path = notes.filesystem()
    for name in notes.names():
        if name.startswith("train-"):
            table = pq.read_table(f"{path}/{name}", columns=["note"], filesystem=filesystem)
            yield from table["note"].to_pylist()


def _load(name: str, source: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    try:
        config = AutoConfig.from_pretrained(source)
        tokenizer = AutoTokenizer.from_pretrained(source)
        model = AutoModelForCausalLM.from_pretrained(source, config=config, dtype="auto")
    except (OSError, ValueError, KeyError) as error:
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"training.base_model {name!r} cannot be opened as a causal language model with its tokenizer: "
            f"{first_line}"
        ) from error
    return model, tokenizer


def fit_together(
    name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, sequence_length: int
) -> dict[str, Any]:
    """Checks that model, tokenizer and sequence length fit together; sets the template and the end token."""
    config = model.config.get_text_config()
    if tokenizer.eos_token_id is None:
        raise ConfigError(f"training.base_model {name!r}: its tokenizer has no end-of-sequence token")
    if len(tokenizer) > config.vocab_size:
        raise ConfigError(
            f"training.base_model {name!r}: its tokenizer has {len(tokenizer)} tokens, "
            f"its model only {config.vocab_size}"
        )
    longest = getattr(config, "max_position_embeddings", None) or sequence_length
    if sequence_length > longest:
        raise ConfigError(
            f"tokens.sequence_length {sequence_length} is longer than the {longest} positions of "
            f"training.base_model {name!r}; lower it"
        )
    plain = ensure_chat_template(tokenizer)
    end = end_token_id(tokenizer)
    generation = model.generation_config or GenerationConfig()
    known = generation.eos_token_id
    stops = {end, tokenizer.eos_token_id, *(known if isinstance(known, list) else [known])} - {None}
    generation.eos_token_id = sorted(stops)
    if generation.pad_token_id is None:
        generation.pad_token_id = tokenizer.pad_token_id
        if generation.pad_token_id is None:
            generation.pad_token_id = tokenizer.eos_token_id
    # Sampling settings of the base model would be applied to a model that we trained otherwise.
    generation.do_sample, generation.temperature, generation.top_p, generation.top_k = False, None, None, None
    model.generation_config = generation
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"base_model": name, "parameters": parameters, "plain_chat_template": plain}
