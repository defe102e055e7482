"""`[training.deepspeed]`: which keys of DeepSpeed's configuration a run file may set, and how. Pure.

DeepSpeed itself passes over a key that it does not know, so the known ones are listed here.
"""

from collections.abc import Iterator, Mapping
from typing import Any

OWNED = {
    "train_batch_size": "training.global_batch",
    "train_micro_batch_size_per_gpu": "training.micro_batch",
    "gradient_accumulation_steps": "training.global_batch and training.micro_batch",
    "gradient_clipping": "training.max_gradient_norm",
    "scheduler": "training.phases: the loop sets the learning rate of every step",
    "fp16": "training.precision",
    "bf16.enabled": "training.precision",
    "zero_optimization.stage": "training.zero_stage",
    "zero_optimization.offload_optimizer.device": "training.optimizer_offload",
    "zero_optimization.offload_param.device": "training.parameter_offload",
    "optimizer.type": "the checkpoints, which hold the state of AdamW",
    "optimizer.params.lr": "training.phases",
    "optimizer.params.weight_decay": "training.weight_decay",
    "optimizer.params.torch_adam": "the checkpoints, which hold the state of torch's AdamW",
    "checkpoint": "the loop, which writes checkpoints of its own",
    "steps_per_print": "the loop, which reports every step",
}
"""Path of a key → what decides it."""
OPEN_TABLES = ("bf16", "comms_logger", "flops_profiler", "optimizer.params", "zero_optimization")
"""Tables that a run file may add to; DeepSpeed and torch refuse what they do not know in them."""
OPEN_VALUES = (
    "communication_data_type",
    "data_types.grad_accum_dtype",
    "gradient_predivide_factor",
    "memory_breakdown",
    "prescale_gradients",
    "wall_clock_breakdown",
)


def check_table(table: Mapping[str, Any]) -> None:
    """A ValueError names a key that is decided elsewhere or that DeepSpeed would pass over."""
    for path, value in _paths(table):
        if path in OWNED:
            raise ValueError(f"deepspeed.{path} cannot be set here: it is decided by {OWNED[path]}")
        if not (isinstance(value, Mapping) or _is_open(path)):
            raise ValueError(
                f"deepspeed.{path}: there is no such setting, or none that goes with this loop; there are "
                f"{', '.join(OPEN_VALUES)} and the tables {', '.join(OPEN_TABLES)}"
            )


def merged(config: Mapping[str, Any], table: Mapping[str, Any]) -> dict[str, Any]:
    """`config` with the table laid over it: tables are merged, any other value is replaced."""
    result = dict(config)
    for key, value in table.items():
        below = result.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            result[key] = merged(below, value)
        else:
            result[key] = value
    return result


def _is_open(path: str) -> bool:
    return path in OPEN_VALUES or any(path.startswith(f"{name}.") for name in OPEN_TABLES)


def _paths(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        yield f"{prefix}{key}", value
        if isinstance(value, Mapping):
            yield from _paths(value, f"{prefix}{key}.")
