"""A model → the tensors of its Hugging Face folder, and which of its files holds which.

The same on every worker: sizes are known without a single weight at hand, so all agree on who writes what.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from asclepius_ray.training.lora import adapted_layers, adapter_weights, merged_weight
from asclepius_ray.training.safetensors_stream import SavedTensor

Revert = Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]

_BASE_LAYER = ".base_layer."
"""What peft puts between a layer's name and its own weight."""


@dataclass(frozen=True)
class Source:
    """Weights that are gathered at once, and what is saved of them."""

    parts: tuple[torch.Tensor, ...]
    value: Callable[[], dict[str, torch.Tensor]]
    """The tensors by name; may be called only while the parts are whole."""
    saved: tuple[SavedTensor, ...]

    @property
    def num_bytes(self) -> int:
        return sum(tensor.num_bytes for tensor in self.saved)


@dataclass(frozen=True)
class Shard:
    """One file, and what goes into it, in the order of the file."""

    file: str
    sources: tuple[Source, ...]

    @property
    def saved(self) -> list[SavedTensor]:
        return [tensor for source in self.sources for tensor in source.saved]


def model_sources(model: PreTrainedModel) -> list[Source]:
    """Every weight and persistent buffer under its public name; tied weights once, adapters merged."""
    layers = {id(layer.get_base_layer().weight): layer for _, layer in adapted_layers(model)}
    adapters = {id(weight) for layer in layers.values() for weight in adapter_weights(layer).values()}
    tensors: dict[str, torch.Tensor] = {
        name.replace(_BASE_LAYER, "."): weight
        for name, weight in _untied(model)
        if id(weight) not in adapters
    }
    tensors |= persistent_buffers(model)
    revert = _reverting(model, tensors)
    return [_source(name, tensor, layers.get(id(tensor)), revert) for name, tensor in tensors.items()]


def persistent_buffers(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """The buffers that are stored with the weights, by name; ZeRO leaves them whole on every worker."""
    stored = model.state_dict().keys()
    return {name: buffer for name, buffer in model.named_buffers() if name in stored}


def adapter_sources(model: PreTrainedModel) -> list[Source]:
    """The adapters alone, under the names that peft reads."""
    return [
        _source(f"base_model.model.{name}.{kind}.weight", weight, None, _as_it_is)
        for name, layer in adapted_layers(model)
        for kind, weight in adapter_weights(layer).items()
    ]


def plan_shards(sources: Iterable[Source], shard_bytes: float, stem: str) -> list[Shard]:
    """Files of at most `shard_bytes`, filled in order; a larger tensor has a file of its own."""
    groups: list[list[Source]] = []
    room = 0.0
    for source in sources:
        if not groups or source.num_bytes > room:
            groups.append([])
            room = shard_bytes
        groups[-1].append(source)
        room -= source.num_bytes
    names = [f"{stem}-{number:05d}-of-{len(groups):05d}" for number in range(1, len(groups) + 1)]
    if len(groups) == 1:
        names = [stem]
    return [
        # Wide types first, so that each tensor begins at a multiple of its own width.
        Shard(f"{name}.safetensors", tuple(sorted(group, key=_width, reverse=True)))
        for name, group in zip(names, groups, strict=True)
    ]


def index_json(shards: Iterable[Shard]) -> bytes:
    """The text of `model.safetensors.index.json`."""
    saved = {tensor: shard.file for shard in shards for tensor in shard.saved}
    metadata = {
        "total_parameters": sum(torch.Size(tensor.shape).numel() for tensor in saved),
        "total_size": sum(tensor.num_bytes for tensor in saved),
    }
    weight_map = {tensor.name: file for tensor, file in saved.items()}
    content = {"metadata": metadata, "weight_map": weight_map}
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()


def _untied(model: PreTrainedModel) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """Every parameter once, a tied one under the name that transformers keeps."""
    by_identity: dict[int, list[tuple[str, torch.nn.Parameter]]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        by_identity.setdefault(id(parameter), []).append((name, parameter))
    tied_to_another = set(model.all_tied_weights_keys)
    for names in by_identity.values():
        yield next((pair for pair in names if pair[0] not in tied_to_another), names[0])


def _source(name: str, tensor: torch.Tensor, layer: LoraLayer | None, revert: Revert) -> Source:
    def value() -> dict[str, torch.Tensor]:
        return revert({name: tensor.detach() if layer is None else merged_weight(layer)})

    saved = [
        SavedTensor(saved_name, empty.dtype, tuple(empty.shape))
        for saved_name, empty in revert({name: _empty(tensor)}).items()
    ]
    parts = [tensor] if layer is None else [tensor, *adapter_weights(layer).values()]
    return Source(tuple(parts), value, tuple(saved))


def _reverting(model: PreTrainedModel, tensors: Mapping[str, torch.Tensor]) -> Revert:
    """How to give one tensor the names and shapes that published models of this kind have.

    transformers fuses the experts of some models when it loads them, and reads both forms: where one tensor
    alone does not tell its published ones, all are saved as they are.
    """
    empty = {name: _empty(tensor) for name, tensor in tensors.items()}
    whole = _shapes(revert_weight_conversion(model, dict(empty)))
    if whole == _shapes(empty):
        return _as_it_is
    single: dict[str, torch.Tensor] = {}
    for name, tensor in empty.items():
        single |= revert_weight_conversion(model, {name: tensor})
    return partial(revert_weight_conversion, model) if _shapes(single) == whole else _as_it_is


def _as_it_is(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return tensors


def _empty(tensor: torch.Tensor) -> torch.Tensor:
    # Under ZeRO 3 a parameter is a stump that knows the shape of the whole.
    return torch.empty(getattr(tensor, "ds_shape", tensor.shape), dtype=tensor.dtype, device="meta")


def _shapes(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def _width(source: Source) -> int:
    return max(tensor.dtype.itemsize for tensor in source.saved)
