"""Low-rank adapters by peft: put into the model before DeepSpeed sees it, merged or alone at its end."""

from collections.abc import Iterator

import torch
from peft import LoraConfig as PeftLoraConfig
from peft import inject_adapter_in_model
from peft.tuners.lora import Linear, LoraLayer
from transformers import PreTrainedModel

from asclepius_ray.errors import ConfigError
from asclepius_ray.training.config import LoraConfig

ADAPTER = "default"
_ALL_LINEAR = "all-linear"


def add_adapters(model: PreTrainedModel, lora: LoraConfig, seed: int) -> None:
    """Gives every target layer an adapter that adds nothing yet, and freezes all else.

    The weights are the same on every worker: they are drawn from the seed, on the CPU. Works on a model whose
    weights ZeRO 3 has sharded already: an adapter's size comes from its layer, not from the weight.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            inject_adapter_in_model(peft_config(lora), model, ADAPTER)
        except ValueError as error:
            raise ConfigError(
                f"training.lora.target_modules {list(lora.target_modules)}: {str(error).splitlines()[0]}"
            ) from error
    adapted = dict(adapted_layers(model))
    for target in lora.target_modules:
        if not any(name == target or name.endswith(f".{target}") for name in adapted):
            raise ConfigError(
                f"training.lora.target_modules: the base model has no layer {target!r}; its linear layers "
                f"are {', '.join(_linear_names(model))}"
            )
    for name, layer in adapted.items():
        if not isinstance(layer, Linear):
            raise ConfigError(
                f"training.lora.target_modules: {name} is no linear layer, and only those get an adapter"
            )
        # peft makes them in 32 bits; DeepSpeed wants all of a model in one precision.
        for parameter in adapter_weights(layer).values():
            parameter.data = parameter.data.to(layer.get_base_layer().weight.dtype)


def peft_config(lora: LoraConfig, base_model: str = "") -> PeftLoraConfig:
    """The adapter's description, as `adapter_config.json` holds it."""
    return PeftLoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.target_modules) or _ALL_LINEAR,
        bias="none",
        task_type="CAUSAL_LM",
        base_model_name_or_path=base_model or None,
    )


def adapted_layers(model: torch.nn.Module) -> Iterator[tuple[str, LoraLayer]]:
    """Every layer with an adapter, under its name in the model without adapters."""
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            yield name, module


def adapter_weights(layer: LoraLayer) -> dict[str, torch.nn.Parameter]:
    """The two weights of a layer's adapter."""
    return {"lora_A": layer.lora_A[ADAPTER].weight, "lora_B": layer.lora_B[ADAPTER].weight}


def merged_weight(layer: LoraLayer) -> torch.Tensor:
    """The weight that does what layer and adapter do together, in the layer's precision."""
    weight = layer.get_base_layer().weight.detach()
    with torch.no_grad():
        # In 32 bits, and rounded once.
        merged: torch.Tensor = weight.float() + layer.get_delta_weight(ADAPTER).float()
    return merged.to(weight.dtype)


def _linear_names(model: PreTrainedModel) -> list[str]:
    head = model.get_output_embeddings()
    linear = [
        name.removesuffix(".base_layer")
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head and ".lora_" not in name
    ]
    return sorted({name.rsplit(".", 1)[-1] for name in linear})
