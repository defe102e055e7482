"""The weights of a base model, from its source's files to those of `base_model/`.

Safetensors are copied as they are, torch's files converted one after the other; only a model whose files
name their tensors otherwise than transformers does is loaded whole.
"""

import json
import pickle
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import ConfigError
from asclepius_ray.training.base_model_source import weight_files
from asclepius_ray.training.export_plan import index_json, model_sources, plan_shards
from asclepius_ray.training.safetensors_stream import SavedTensor, TensorFile
from asclepius_ray.transfers import copy_files

INDEX_NAME = "model.safetensors.index.json"
SHARD_BYTES = 5 * 10**9


def bring_weights(name: str, source: Folder, model: PreTrainedModel, target: Folder) -> dict[str, str]:
    """Writes the weight files and their index; returns their sha256. `model` needs no weights itself."""
    files = weight_files(source)
    if not files:
        raise ConfigError(
            f"training.base_model {name!r} holds no weights: neither model.safetensors nor "
            "pytorch_model.bin, nor an index of either"
        )
    expected = {tensor.name: tensor for item in model_sources(model) for tensor in item.saved}
    if files[0].endswith(".safetensors"):
        found = {key: shape for file in files for key, shape in read_shapes(source, file).items()}
        if expected.keys() <= found.keys():
            _require_shapes(name, expected, found)
            indices = [] if files == ["model.safetensors"] else [INDEX_NAME]
            return copy_files(source, target, [*files, *indices])
    elif (hashes := _convert(name, source, files, expected, target)) is not None:
        return hashes
    with source.as_local() as path:
        return write_weights(AutoModelForCausalLM.from_pretrained(path, dtype="auto"), target)


def write_weights(model: PreTrainedModel, target: Folder) -> dict[str, str]:
    """Writes a model that is in memory, file by file; returns their sha256."""
    shards = plan_shards(model_sources(model), SHARD_BYTES, "model")
    hashes = {}
    for shard in shards:
        file = TensorFile(target, shard.file, shard.saved)
        for item in shard.sources:
            for tensor in item.value().values():
                file.put(tensor)
        hashes[shard.file] = file.close()
    if len(shards) > 1:
        target.write_bytes(INDEX_NAME, index_json(shards))
    return hashes


def read_shapes(folder: Folder, file: str) -> dict[str, tuple[int, ...]]:
    """The tensors of a safetensors file and their shapes; reads its header alone."""
    length = int.from_bytes(folder.read_range(file, 0, 8), "little")
    try:
        header = json.loads(folder.read_range(file, 8, length))
    except ValueError as error:
        raise ConfigError(f"{folder.uri}/{file} is no whole safetensors file; fetch it again") from error
    return {key: tuple(entry["shape"]) for key, entry in header.items() if key != "__metadata__"}


def _convert(
    name: str, source: Folder, files: list[str], expected: Mapping[str, SavedTensor], target: Folder
) -> dict[str, str] | None:
    """torch's files as safetensors, one in memory at a time; None if any tensor has another name there."""
    stems = [f"model-{number:05d}-of-{len(files):05d}" for number in range(1, len(files) + 1)]
    places: dict[str, str] = {}
    hashes = {}
    for file, stem in zip(files, stems if len(files) > 1 else ["model"], strict=True):
        with _local_file(source, file) as path:
            tensors = _read_torch_file(name, path)
            kept = [
                SavedTensor(key, tensors[key].dtype, tuple(tensors[key].shape))
                for key in tensors
                if key in expected
            ]
            _require_shapes(name, expected, {tensor.name: tensor.shape for tensor in kept})
            writing = TensorFile(target, f"{stem}.safetensors", kept)
            for tensor in kept:
                writing.put(tensors[tensor.name])
            hashes[f"{stem}.safetensors"] = writing.close()
            places |= {tensor.name: f"{stem}.safetensors" for tensor in kept}
            del tensors
    if places.keys() != expected.keys():
        return None
    if len(files) > 1:
        content = {"metadata": {}, "weight_map": places}
        target.write_bytes(INDEX_NAME, (json.dumps(content, indent=2, sort_keys=True) + "\n").encode())
    return hashes


@contextmanager
def _local_file(folder: Folder, file: str) -> Iterator[Path]:
    if folder.is_local:
        yield folder.local_path / file
        return
    with tempfile.TemporaryDirectory() as scratch:
        copy_files(folder, Folder(scratch), [file])
        yield Path(scratch) / file


def _read_torch_file(name: str, path: Path) -> dict[str, torch.Tensor]:
    try:
        # Files of torch before 1.6 cannot be mapped into memory.
        tensors: dict[str, torch.Tensor] = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise ConfigError(
            f"training.base_model {name!r}: {path.name} holds more than weights, or is damaged "
            f"({type(error).__name__}); use a model with safetensors"
        ) from error
    return tensors


def _require_shapes(
    name: str, expected: Mapping[str, SavedTensor], found: Mapping[str, tuple[int, ...]]
) -> None:
    for key, shape in found.items():
        if key in expected and expected[key].shape != shape:
            raise ConfigError(
                f"training.base_model {name!r}: the weight {key} is of shape {list(shape)}, where "
                f"config.json asks for {list(expected[key].shape)}; its files do not belong together"
            )
