"""A base model without its weights: its configuration, its size and its tokenizer."""

import os
from dataclasses import dataclass

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from asclepius_ray.doctor.memory import ModelShape
from asclepius_ray.doctor.rows import Row
from asclepius_ray.errors import ConfigError
from asclepius_ray.run import Run
from asclepius_ray.tokens.tokenizer import train_tokenizer
from asclepius_ray.training.base_model import fit_together, open_shape, tiny_config
from asclepius_ray.training.base_model_source import check_base_model, source_folder, weight_files
from asclepius_ray.training.config import TINY, TrainingConfig
from asclepius_ray.training.lora import add_adapters


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
    training, length = run.training, run.tokens.sequence_length
    if training.base_model == TINY:
        tokenizer = train_tokenizer((row.note for row in rows), training.tiny.vocabulary_size)
        # On no device: the shapes alone, in milliseconds for a model of any size.
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(tiny_config(training.tiny, tokenizer, length))
    else:
        model, tokenizer = _open(training)
    details = fit_together(training.base_model, model, tokenizer, length)
    if training.lora is not None:
        add_adapters(model, training.lora, run.seed)
    return BaseModel(_shape(model), tokenizer, not details["plain_chat_template"])


def _open(training: TrainingConfig) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    name = training.base_model
    check_base_model(name)
    source = source_folder(
        training.base_model_folder or name, os.environ.get("HF_TOKEN", ""), with_weights=False
    )
    # A Hugging Face id's weights are not fetched for this.
    if training.base_model_is_place and not weight_files(source):
        raise ConfigError(
            f"training.base_model {name!r} has a config.json and no weights (model.safetensors or "
            "pytorch_model.bin, or several with their index); copy the whole folder there"
        )
    return open_shape(name, source)


def _shape(model: PreTrainedModel) -> ModelShape:
    config = model.config.get_text_config()
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return ModelShape(
        parameters=sum(size for size, _ in sizes),
        trainable_parameters=sum(size for size, is_trained in sizes if is_trained),
        largest_tensor=max(size for size, _ in sizes),
        hidden_size=config.hidden_size,
        intermediate_size=getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
        layers=config.num_hidden_layers,
        vocabulary_size=config.vocab_size,
    )
