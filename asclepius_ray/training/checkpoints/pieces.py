"""Which parts of every parameter's optimizer state this rank owns, under each ZeRO stage; puts them back.

DeepSpeed offers no view of this that holds before the first step and under every stage. What is read
here is private to it: its version is pinned, and `check_optimizer` refuses one that looks different.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from deepspeed import DeepSpeedEngine
from deepspeed.runtime.bf16_optimizer import BF16_Optimizer
from deepspeed.runtime.fp16.fused_optimizer import FP16_Optimizer
from deepspeed.runtime.fp16.unfused_optimizer import FP16_UnfusedOptimizer
from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3
from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer

from asclepius_ray.errors import TrainingError
from asclepius_ray.training.checkpoints.adam import adam_state, check_adam, inner_optimizer
from asclepius_ray.training.checkpoints.catalog import Fragment
from asclepius_ray.training.checkpoints.shards import Piece

_READ_HERE = {
    DeepSpeedZeroOptimizer: ("bit16_groups", "single_partition_of_fp32_groups", "update_lp_params"),
    BF16_Optimizer: ("bf16_groups", "fp32_groups_flat_partition", "update_lp_params"),
    DeepSpeedZeroOptimizer_Stage3: (
        "fp16_groups",
        "fp16_partitioned_groups_flat",
        "fp32_partitioned_groups_flat",
        "persistent_parameters",
        "swap_optimizer",
        "partial_offload",
    ),
    FP16_UnfusedOptimizer: ("fp16_groups", "fp32_groups"),
    FP16_Optimizer: ("fp16_groups", "fp16_groups_flat", "fp32_groups_flat"),
}


@dataclass(frozen=True)
class _Partition:
    """One flat tensor of the optimizer: what of which parameter is where in it."""

    flat: torch.Tensor
    contents: list[tuple[Fragment, int]]
    """A fragment, and its first element's place in `flat`."""


def check_optimizer(engine: DeepSpeedEngine) -> None:
    """A TrainingError if the state of this optimizer could not be saved, before a step is paid for."""
    optimizer = engine.optimizer
    names = _READ_HERE.get(type(optimizer), ())
    lacking = [name for name in names if not hasattr(optimizer, name)]
    if lacking:
        raise TrainingError(
            f"deepspeed {version('deepspeed')} has no {lacking[0]} in its {type(optimizer).__name__}, and "
            "without it no checkpoint can be written; install the version of constraints.txt"
        )
    if not names and not isinstance(optimizer, torch.optim.Optimizer):
        raise TrainingError(
            f"checkpoints do not know DeepSpeed's {type(optimizer).__name__}; leave the settings that choose "
            "it out of the table training.deepspeed"
        )
    if getattr(optimizer, "swap_optimizer", False) or getattr(optimizer, "partial_offload", 1.0) != 1.0:
        raise TrainingError(
            "checkpoints cannot be written of an optimizer that is on NVMe or offloaded in part; offload all "
            'of it to "cpu"'
        )
    check_adam(inner_optimizer(engine))


def parameter_sizes(engine: DeepSpeedEngine) -> dict[str, int]:
    """Every trainable parameter and its number of elements, tied ones once."""
    return {
        name: int(getattr(parameter, "ds_numel", parameter.numel()))
        for name, parameter in engine.module.named_parameters()
        if parameter.requires_grad
    }


def owned_pieces(engine: DeepSpeedEngine) -> list[Piece]:
    """All that this rank needs to go on, in a fixed order; without ZeRO that is everything."""
    inner = inner_optimizer(engine)
    pieces = []
    for partition in _partitions(engine):
        state = adam_state(inner, partition.flat)
        tensors = [partition.flat.detach(), state["exp_avg"], state["exp_avg_sq"]]
        flats = [tensor.view(-1) for tensor in tensors]
        for fragment, place in partition.contents:
            pieces.append(Piece(fragment, *(flat[place : place + fragment.size] for flat in flats)))
    return pieces


def pieces_to_save(engine: DeepSpeedEngine, rank: int, num_workers: int) -> list[Piece]:
    """This rank's part of the state: over all ranks, every element once."""
    pieces = owned_pieces(engine)
    if engine.zero_optimization_stage():
        return pieces
    # Every rank holds all of it: each writes an equal share.
    total = sum(piece.fragment.size for piece in pieces)
    first, last = rank * total // num_workers, (rank + 1) * total // num_workers
    share, seen = [], 0
    for piece in pieces:
        begin, end = max(first - seen, 0), min(last - seen, piece.fragment.size)
        if begin < end:
            share.append(piece.part(begin, end))
        seen += piece.fragment.size
    return share


def refresh_weights(engine: DeepSpeedEngine) -> None:
    """Makes the model's weights those of the masters; every rank must call it."""
    optimizer = engine.optimizer
    if isinstance(optimizer, DeepSpeedZeroOptimizer | BF16_Optimizer):
        optimizer.update_lp_params()
        return
    with torch.no_grad():
        for weights, master in _weights_and_masters(optimizer):
            weights.copy_(master)
    if isinstance(optimizer, DeepSpeedZeroOptimizer_Stage3) and optimizer.persistent_parameters:
        # Small parameters stay put together on every rank between two steps.
        first = optimizer.persistent_parameters[0]
        first.partition(optimizer.persistent_parameters)
        first.all_gather(optimizer.persistent_parameters)


def _weights_and_masters(optimizer: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    if isinstance(optimizer, DeepSpeedZeroOptimizer_Stage3):
        masters = optimizer.fp32_partitioned_groups_flat
        yield from zip(optimizer.fp16_partitioned_groups_flat, masters, strict=True)
    elif isinstance(optimizer, FP16_Optimizer):
        yield from zip(optimizer.fp16_groups_flat, optimizer.fp32_groups_flat, strict=True)
    elif isinstance(optimizer, FP16_UnfusedOptimizer):
        for weights, masters in zip(optimizer.fp16_groups, optimizer.fp32_groups, strict=True):
            yield from zip(weights, masters, strict=True)


def _partitions(engine: DeepSpeedEngine) -> Iterator[_Partition]:
    optimizer: Any = engine.optimizer
    names = {id(parameter): name for name, parameter in engine.module.named_parameters()}
    if isinstance(optimizer, DeepSpeedZeroOptimizer):
        groups = zip(optimizer.bit16_groups, optimizer.single_partition_of_fp32_groups, strict=True)
        yield from (_mapped(flat, group, names) for group, flat in groups)
    elif isinstance(optimizer, BF16_Optimizer):
        groups = zip(optimizer.bf16_groups, optimizer.fp32_groups_flat_partition, strict=True)
        yield from (_mapped(flat, group, names) for group, flat in groups)
    elif isinstance(optimizer, DeepSpeedZeroOptimizer_Stage3):
        groups = zip(optimizer.fp16_groups, optimizer.fp32_partitioned_groups_flat, strict=True)
        yield from (_shared_out(flat, group, names) for group, flat in groups)
    elif isinstance(optimizer, FP16_UnfusedOptimizer):
        for group, masters in zip(optimizer.fp16_groups, optimizer.fp32_groups, strict=True):
            yield from (
                _joined(master, [parameter], names) for parameter, master in zip(group, masters, strict=True)
            )
    elif isinstance(optimizer, FP16_Optimizer):
        groups = zip(optimizer.fp16_groups, optimizer.fp32_groups_flat, strict=True)
        yield from (_joined(flat, group, names) for group, flat in groups)
    else:
        for settings in optimizer.param_groups:
            trainable = [parameter for parameter in settings["params"] if parameter.requires_grad]
            yield from (_joined(parameter, [parameter], names) for parameter in trainable)


def _mapped(flat: torch.Tensor, group: list[torch.Tensor], names: dict[int, str]) -> _Partition:
    """ZeRO 1 and 2: the group is one long list cut into equal parts, and each parameter knows its place."""
    contents = []
    for parameter in group:
        if (mapping := parameter._hp_mapping) is not None:  # type: ignore[attr-defined]
            inside, place = mapping.lp_fragment_address, mapping.hp_fragment_address
            contents.append((Fragment(names[id(parameter)], inside.start, inside.numel), place.start))
    return _Partition(flat, contents)


def _shared_out(flat: torch.Tensor, group: list[torch.Tensor], names: dict[int, str]) -> _Partition:
    """ZeRO 3: each parameter is cut into equal parts of its own, the last one with padding."""
    contents, place = [], 0
    for parameter in group:
        share: int = parameter.partition_numel()  # type: ignore[attr-defined]
        start = share * torch.distributed.get_rank(parameter.ds_process_group)  # type: ignore[attr-defined]
        size = min(share, parameter.ds_numel - start)  # type: ignore[attr-defined]
        if size > 0:
            contents.append((Fragment(names[id(parameter)], start, size), place))
        place += share
    return _Partition(flat, contents)


def _joined(flat: torch.Tensor, group: list[torch.Tensor], names: dict[int, str]) -> _Partition:
    """Whole parameters, one behind the other."""
    contents, place = [], 0
    for parameter in group:
        contents.append((Fragment(names[id(parameter)], 0, parameter.numel()), place))
        place += parameter.numel()
    return _Partition(flat, contents)
