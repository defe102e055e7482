"""A prepared model folder → the model on each worker, and the proof that it keeps packed documents apart."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import deepspeed
import numpy as np
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedModel
from transformers.initialization import no_init_weights
from transformers.utils.loading_report import LoadStateDictInfo

from asclepius_ray.artifacts import Folder, read_manifest
from asclepius_ray.errors import TrainingError
from asclepius_ray.node_cache import fetch_to_node
from asclepius_ray.tokens.packing import Packing
from asclepius_ray.tokens.rendering import TokenizedExample
from asclepius_ray.tokens.store import documents_in_memory
from asclepius_ray.training.base_model_source import WEIGHT_SUFFIXES
from asclepius_ray.training.batches import Batch, PackedRows, collate, collate_alone
from asclepius_ray.training.config import TrainingConfig
from asclepius_ray.training.export_plan import persistent_buffers

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# Step and length of the documents that are tried.
_PROBE = ((3, 5), (7, 6))
# Which of them make up each row. No border of one row is one of the other, and the second ends in padding: a
# model may keep documents apart in a single row alone, or by the borders of the first.
_PROBE_ROWS = ((0, 0, 1), (1, 0))
# Documents that see each other differ by 0.6 and more of the logits' size; rounding makes 1e-6 in 32 bits.
_LARGEST_DIFFERENCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2}


def fetch_base_model(root: Folder, training: TrainingConfig) -> Path:
    """`base_model/` on this node, fetched once for all its workers; the weights only where they are read."""
    folder = root.child("base_model")
    manifest = read_manifest(folder)
    reads_weights = training.zero_stage < 3 or torch.distributed.get_rank() == 0
    hashes = {
        name: digest
        for name, digest in manifest.files.items()
        if reads_weights or not name.endswith(WEIGHT_SUFFIXES)
    }
    return fetch_to_node(folder, manifest.identity, hashes)


def load_model(path: Path, training: TrainingConfig) -> PreTrainedModel:
    """The whole model on this worker, tensor by tensor onto its device: the host never holds all of it."""
    device = torch.device("cuda", torch.cuda.current_device()) if training.use_gpu else torch.device("cpu")
    return AutoModelForCausalLM.from_pretrained(
        path,
        dtype=DTYPES[training.precision],
        attn_implementation=training.attention,
        device_map={"": device},
    )


def load_sharded_model(path: Path, training: TrainingConfig, config: dict[str, Any]) -> PreTrainedModel:
    """The model under ZeRO 3: rank 0 reads, and no worker ever holds more of it whole than one tensor.

    The other ranks need nothing of the folder but its configuration.
    """
    model_config = AutoConfig.from_pretrained(path)
    with deepspeed.zero.Init(config_dict_or_path=config), no_init_weights():
        model = AutoModelForCausalLM.from_config(
            model_config, dtype=DTYPES[training.precision], attn_implementation=training.attention
        )
    model.tie_weights()
    restore_buffers(model)
    if (path / "generation_config.json").exists():
        model.generation_config = GenerationConfig.from_pretrained(path)
    _spread_weights(model, path)
    return model


def _spread_weights(model: PreTrainedModel, path: Path) -> None:
    """Rank 0 reads the folder's tensors one by one; every rank keeps its share, and all buffers."""
    reads = torch.distributed.get_rank() == 0
    files = _weight_files(path) if reads else {}
    # All ranks have to learn of it: those that go on would wait for rank 0.
    verdict = [_mismatch(model, files.keys()) if reads else None]
    torch.distributed.broadcast_object_list(verdict)
    if verdict[0] is not None:
        raise TrainingError(verdict[0])
    for name, parameter in model.named_parameters():
        with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
            if reads:
                parameter.data.copy_(_read_tensor(files[name], name))
    for name, buffer in persistent_buffers(model).items():
        read = [_read_tensor(files[name], name) if reads else torch.empty(0)]
        torch.distributed.broadcast_object_list(read)
        buffer.copy_(read[0])


def _mismatch(model: PreTrainedModel, found: Collection[str]) -> str | None:
    """What keeps the tensors of these names from being all of the model and nothing else; None if nothing.

    What transformers passes over when it loads such a model is passed over here.
    """
    needed = [name for name, _ in model.named_parameters()] + list(persistent_buffers(model))
    missing = [name for name in needed if name not in found]
    computed = {name for name, _ in model.named_buffers(remove_duplicate=False)}
    info = LoadStateDictInfo(set(), set(found) - model.state_dict().keys() - computed, set(), [], {}, set())
    model._adjust_missing_and_unexpected_keys(info)
    for what, names in (("lack", missing), ("hold, for no part of the model,", sorted(info.unexpected_keys))):
        if names:
            return (
                f"the base model's files {what} {len(names)} tensor(s), the first is {names[0]}; "
                "set training.zero_stage to 0, 1 or 2 for this kind of model"
            )
    return None


def _read_tensor(file: Path, name: str) -> torch.Tensor:
    with safe_open(file, framework="pt") as weights:
        tensor: torch.Tensor = weights.get_tensor(name)
    return tensor


def restore_buffers(model: PreTrainedModel) -> None:
    """Computes the rotary frequencies again, in 32 bits; to be called before the weights are read.

    Under ZeRO's constructor they come out rounded to the 16 bits of the weights: a position of 1,000
    would be turned by up to two radians, and the served model would read another text than the trained one.
    Buffers that are stored with the weights are not computed, and stay as they are.
    """
    stored = persistent_buffers(model).keys()
    for prefix, module in model.named_modules():
        rounded = {
            name: buffer
            for name, buffer in module.named_buffers(recurse=False)
            if buffer.dtype in (torch.bfloat16, torch.float16)
            and f"{prefix}.{name}".removeprefix(".") not in stored
        }
        if rounded and not any(True for _ in module.parameters(recurse=False)):
            for name, buffer in rounded.items():
                setattr(module, name, buffer.float())
            model._init_weights(module)


def check_documents_are_apart(model: PreTrainedModel, device: torch.device) -> None:
    """Refuses a model that gives documents other logits in a packed micro-batch than it gives each alone."""
    rows = _probe_rows(model.config.get_text_config().vocab_size)
    was_training = model.training
    model.eval()
    together = _probe_logits(model, collate(rows, range(len(rows))), device)
    each = [_probe_logits(model, collate_alone(rows, number), device)[0] for number in range(len(_PROBE))]
    model.train(was_training)
    alone = torch.cat([each[number] for row in _PROBE_ROWS for number in row])
    # What a row has behind its documents is padding.
    packed = torch.cat([logits[: rows.tokens([row])] for row, logits in enumerate(together)])
    if not torch.isfinite(alone).all():
        raise TrainingError(
            "the base model's weights are damaged: what it makes of a short text is no number; fetch or make "
            "it anew, or name another one in training.base_model"
        )
    difference = float((_centred(packed) - _centred(alone)).norm() / _centred(alone).norm())
    # Not "difference > limit": what is not a number is no proof.
    if not difference <= _LARGEST_DIFFERENCE[packed.dtype]:
        raise TrainingError(
            "this kind of base model lets documents that are packed into one row see each other (its packed "
            f"logits are off by {difference:.2g} of their size); use another base model (Llama, Mistral and "
            "Qwen are known to work)"
        )


def _probe_rows(vocabulary: int) -> PackedRows:
    documents = [
        TokenizedExample([(step * index + 1) % vocabulary for index in range(length)], [True] * length)
        for step, length in _PROBE
    ]
    numbers = np.concatenate(_PROBE_ROWS).astype(np.int32)
    starts = np.cumsum([0, *(len(row) for row in _PROBE_ROWS)])
    return PackedRows(documents_in_memory(documents), Packing(numbers, starts))


def _probe_logits(model: PreTrainedModel, batch: Batch, device: torch.device) -> torch.Tensor:
    """The logits of a batch, (rows, positions, vocabulary), called as the training calls the model."""
    on_device = batch.to(device)
    with torch.no_grad():
        logits: torch.Tensor = model(
            input_ids=on_device.input_ids,
            position_ids=on_device.position_ids,
            attention_mask=None,
            use_cache=False,
        ).logits
    return logits


def _centred(logits: torch.Tensor) -> torch.Tensor:
    """Without what all tokens have in common: it means nothing, and may be large."""
    return logits.float() - logits.float().mean(dim=-1, keepdim=True)


def _weight_files(path: Path) -> dict[str, Path]:
    """Tensor name → the safetensors file that holds it."""
    index = path / "model.safetensors.index.json"
    if index.exists():
        names: dict[str, str] = json.loads(index.read_text())["weight_map"]
        return {name: path / file for name, file in names.items()}
    single = path / "model.safetensors"
    with safe_open(single, framework="pt") as weights:
        return dict.fromkeys(weights.keys(), single)
