"""The untrained start → `base_model/`: a Hugging Face folder with safetensors, tokenizer and chat template.

Made from the notes for "tiny", else brought from a Hugging Face id, a folder or a URI.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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
from transformers.initialization import no_init_weights
from transformers.utils.logging import disable_progress_bar

from asclepius_ray.artifacts import Folder, write_sums
from asclepius_ray.errors import ConfigError, first_line
from asclepius_ray.tokens.chat_template import ensure_chat_template, writes_the_date
from asclepius_ray.tokens.rendering import end_token_id
from asclepius_ray.tokens.tokenizer import train_tokenizer
from asclepius_ray.training.base_model_origin import ORIGINS, origin_of_rows, origins_of_base
from asclepius_ray.training.base_model_source import SMALL_SUFFIXES, source_folder
from asclepius_ray.training.base_model_weights import bring_weights, write_weights
from asclepius_ray.training.config import TINY, TinyConfig, TrainingConfig
from asclepius_ray.training.sources import rows_manifest, source_folders
from asclepius_ray.transfers import copy_files


def prepare_base_model(
    root: Folder, training: TrainingConfig, sequence_length: int, seed: int, token: str
) -> dict[str, Any]:
    """Writes all files of `base_model/` but the manifest; returns the manifest's details.

    The weights go from file to file and are never all in memory. `token` opens gated models of the Hugging
    Face hub; "" for none.
    """
    disable_progress_bar()
    name, folder = training.base_model, root.child("base_model")
    if name == TINY:
        notes = source_folders(root, training.dataset)["notes"]
        model, tokenizer = make_tiny_model(notes, training.tiny, sequence_length, seed)
        details = _write_small_files(name, model, tokenizer, sequence_length, folder)
        origins = [origin_of_rows(rows_manifest(root, training.dataset))]
        hashes = write_weights(model, folder)
    else:
        source = source_folder(training.base_model_folder or name, token)
        origins = origins_of_base(source)
        model, tokenizer = open_shape(name, source)
        details = _write_small_files(name, model, tokenizer, sequence_length, folder)
        hashes = bring_weights(name, source, model, folder)
    write_sums(folder, hashes)
    return {"base_model": training.shown_base_model, ORIGINS: origins, **details}


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


def open_shape(name: str, source: Folder) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model's shape without its weights (on the device "meta"), and its tokenizer."""
    try:
        with _small_files(source) as path:
            config = AutoConfig.from_pretrained(path)
            tokenizer = AutoTokenizer.from_pretrained(path)
            with torch.device("meta"), no_init_weights():
                model = AutoModelForCausalLM.from_config(config)
            model.tie_weights()
            if (path / "generation_config.json").exists():
                model.generation_config = GenerationConfig.from_pretrained(path)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"training.base_model {name!r} cannot be opened as a causal language model with its tokenizer: "
            f"{first_line(error)}"
        ) from error
    return model, tokenizer


@contextmanager
def _small_files(source: Folder) -> Iterator[Path]:
    """A local folder with all but the weights; one behind a URI is copied for as long as it is needed."""
    if source.is_local:
        yield source.local_path
        return
    with tempfile.TemporaryDirectory() as scratch:
        small = [name for name in source.names() if name.endswith(SMALL_SUFFIXES) and "/" not in name]
        copy_files(source, Folder(scratch), small)
        yield Path(scratch)


def _write_small_files(
    name: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sequence_length: int,
    folder: Folder,
) -> dict[str, Any]:
    """Configurations, tokenizer and template; returns the manifest's details."""
    details = fit_together(name, model, tokenizer, sequence_length)
    model.config.architectures = [type(model).__name__]
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch)
        model.config.save_pretrained(target)
        model.generation_config.save_pretrained(target)
        configs = {file.name for file in target.iterdir()}
        tokenizer.save_pretrained(target)
        details["tokenizer_files"] = sorted(
            file.name for file in target.iterdir() if file.name not in configs
        )
        folder.upload(target)
    return details


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
    if writes_the_date(tokenizer):
        raise ConfigError(
            f"training.base_model {name!r}: its chat template writes the day's date (strftime_now), so the "
            "same example would have other tokens tomorrow; copy the model's folder, put a fixed date in "
            "place of strftime_now(...) in its chat_template.jinja (if it has none, in chat_template of its "
            "tokenizer_config.json), and name that folder"
        )
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
    return {"parameters": parameters, "plain_chat_template": plain}
