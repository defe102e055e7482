"""A base model without its weights: its configuration, its size and its tokenizer."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import huggingface_hub
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from asclepius_ray.artifacts import Folder
from asclepius_ray.doctor.memory import ModelShape
from asclepius_ray.doctor.rows import Row
from asclepius_ray.errors import ConfigError
from asclepius_ray.run import Run
from asclepius_ray.tokens.tokenizer import WEIGHT_SUFFIXES, train_tokenizer
from asclepius_ray.training.base_model import fit_together, tiny_config
from asclepius_ray.training.base_model_source import check_base_model
from asclepius_ray.training.config import TINY


@dataclass(frozen=True)
class BaseModel:
    """What can be known of a base model before a byte of its weights is read."""

    shape: ModelShape
    tokenizer: PreTrainedTokenizerBase
    has_own_template: bool


def open_base_model(run: Run, rows: list[Row]) -> BaseModel:
    """The run's base model; a ConfigError says why it cannot be trained with these settings.

    The tiny one's tokenizer is learnt from `rows`.
    """
    name, length = run.training.base_model, run.tokens.sequence_length
    if name == TINY:
        tokenizer = train_tokenizer((row.note for row in rows), run.training.tiny.vocabulary_size)
        config: PreTrainedConfig = tiny_config(run.training.tiny, tokenizer, length)
    else:
        check_base_model(name)
        with _without_weights(name) as source:
            config, tokenizer = _read(name, source)
    # On no device: the shapes alone, in milliseconds for a model of any size.
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    details = fit_together(name, model, tokenizer, length)
    return BaseModel(_shape(model), tokenizer, not details["plain_chat_template"])


def _shape(model: PreTrainedModel) -> ModelShape:
    config = model.config.get_text_config()
    sizes = [parameter.numel() for parameter in model.parameters()]
    return ModelShape(
        parameters=sum(sizes),
        trainable_parameters=sum(sizes),
        largest_tensor=max(sizes),
        hidden_size=config.hidden_size,
        intermediate_size=getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
        layers=config.num_hidden_layers,
        vocabulary_size=config.vocab_size,
    )


def _read(name: str, source: Path) -> tuple[PreTrainedConfig, PreTrainedTokenizerBase]:
    try:
        return AutoConfig.from_pretrained(source), AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, KeyError) as error:
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"training.base_model {name!r}: its configuration or its tokenizer cannot be read: {first_line}"
        ) from None


@contextmanager
def _without_weights(name: str) -> Iterator[Path]:
    """A local folder with all small files of the model; what was copied for it goes with the context."""
    if "://" not in name and not Path(name).expanduser().is_dir():
        yield _from_hub(name)
        return
    folder = Folder(name) if "://" in name else Folder(str(Path(name).expanduser()))
    names = folder.names()
    if not any(file.endswith((".safetensors", ".bin")) for file in names):
        raise ConfigError(
            f"training.base_model {name!r} has a config.json and no weights (*.safetensors, *.bin); copy the "
            "whole folder there"
        )
    if folder.is_local:
        yield folder.local_path
        return
    with tempfile.TemporaryDirectory() as scratch:
        for file in names:
            if "/" not in file and not file.endswith(WEIGHT_SUFFIXES):
                (Path(scratch) / file).write_bytes(folder.read_bytes(file))
        yield Path(scratch)


def _from_hub(name: str) -> Path:
    patterns = ["*.json", "*.model", "*.jinja", "*.txt"]
    token = os.environ.get("HF_TOKEN") or None
    try:
        return Path(huggingface_hub.snapshot_download(name, token=token, allow_patterns=patterns))
    except (OSError, ValueError, httpx2.HTTPError) as error:
        raise ConfigError(
            f"training.base_model {name!r}: its configuration cannot be fetched ({type(error).__name__}); "
            "check the network, or use a local folder"
        ) from None
