"""Trained weights → a Hugging Face folder with safetensors, from any ZeRO stage."""

from pathlib import Path

import deepspeed
import torch
from transformers import PreTrainedModel

LARGEST_FILE = "5GB"


def gather_weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """All weights on the CPU of rank 0 under their names; {} elsewhere. Every rank must call it.

    Under ZeRO 3 one tensor at a time is put together, so the other ranks never hold the model.
    """
    rank = torch.distributed.get_rank()
    weights: dict[str, torch.Tensor] = {}
    first_names: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        # Tied weights have two names. All ranks skip the second: gathering is a collective.
        first = first_names.setdefault(id(parameter), name)
        if first == name:
            with deepspeed.zero.GatheredParameters([parameter], enabled=hasattr(parameter, "ds_id")):
                if rank == 0:
                    weights[name] = parameter.detach().to("cpu", copy=True)
        elif rank == 0:
            weights[name] = weights[first]
    if rank == 0:
        persistent = set(model.state_dict())
        weights |= {
            name: buffer.detach().to("cpu", copy=True)
            for name, buffer in model.named_buffers()
            if name in persistent
        }
    return weights


def write_model(model: PreTrainedModel, weights: dict[str, torch.Tensor], target: Path) -> None:
    """Writes config.json, generation_config.json and the safetensors files (rank 0 only)."""
    model.save_pretrained(target, state_dict=weights, max_shard_size=LARGEST_FILE)
