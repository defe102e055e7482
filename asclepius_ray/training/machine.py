"""What a worker's node can do, held against what the run file asks of it, before anything is loaded."""

import importlib.util
import socket
from dataclasses import dataclass

import ray
import torch
from ray.exceptions import RayTaskError

from asclepius_ray.errors import ConfigError, TrainingError
from asclepius_ray.training.config import TrainingConfig
from asclepius_ray.training.failures import original_error

AMPERE = 8
"""The first compute capability that flash attention knows."""


@dataclass(frozen=True)
class Machine:
    """One node, as torch sees it from this process."""

    host: str
    num_gpus: int
    compute_capability: int
    """The major number of the weakest GPU; 0 without one."""
    has_bf16: bool
    """Whether the GPUs calculate in bfloat16 themselves."""
    has_flash_attn: bool
    """Whether the package flash-attn is installed."""


def require_gpus(training: TrainingConfig) -> None:
    """A ConfigError if GPUs are missing that nothing will ever bring: on a cluster they are waited for."""
    there = ray.cluster_resources().get("GPU", 0)
    if training.use_gpu and there < training.workers.fewest and _is_this_machine_alone():
        raise ConfigError(
            f"training.workers asks for {training.workers.fewest}, a GPU each, but this machine has "
            f"{there:.0f}; set training.workers or training.use_gpu, or name a cluster in RAY_ADDRESS"
        )


def check_a_node(training: TrainingConfig) -> None:
    """`require_machine` on a node with a GPU, before anything is made ready; waits for one to be free."""
    if not training.use_gpu:
        return
    task = ray.remote(num_cpus=0, num_gpus=1, max_retries=0)(require_this_machine)
    try:
        ray.get(task.remote(training))
    except RayTaskError as error:
        raise original_error(error) from None


def _is_this_machine_alone() -> bool:
    """Whether Ray was started by this very process: nothing will ever join it."""
    node = ray._private.worker._global_node
    return node is not None and bool(node.head)


def this_machine() -> Machine:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    capabilities = [torch.cuda.get_device_capability(index)[0] for index in range(count)]
    return Machine(
        host=socket.gethostname(),
        num_gpus=count,
        compute_capability=min(capabilities, default=0),
        has_bf16=bool(count) and torch.cuda.is_bf16_supported(including_emulation=False),
        has_flash_attn=importlib.util.find_spec("flash_attn") is not None,
    )


def require_this_machine(training: TrainingConfig) -> None:
    """`require_machine` for the machine that this process runs on."""
    require_machine(training, this_machine())


def require_machine(training: TrainingConfig, machine: Machine) -> None:
    """A TrainingError if this machine cannot train as the run file says, and what to set instead."""
    if not training.use_gpu:
        return
    if machine.num_gpus == 0:
        raise TrainingError(
            f"training.use_gpu is true, but torch sees no GPU on {machine.host}; install torch for its GPUs "
            "(make TORCH_INDEX=...), or set training.use_gpu = false"
        )
    if training.precision == "bf16" and not machine.has_bf16:
        raise TrainingError(
            f'training.precision is "bf16", which the GPU of {machine.host} cannot do; set it to "fp32"'
        )
    has_kernel = training.attention != "sdpa" and training.precision == "bf16"
    if has_kernel and machine.compute_capability < AMPERE:
        raise TrainingError(
            f'training.attention is "{training.attention}", for which the GPU of {machine.host} is too old '
            f"(compute capability {machine.compute_capability}, needed {AMPERE}); "
            'set training.attention = "sdpa"'
        )
    if training.attention == "flash_attention_2" and not machine.has_flash_attn:
        raise TrainingError(
            'training.attention is "flash_attention_2", but the package flash-attn is not on '
            f'{machine.host}; install it there, or set training.attention = "varlen", which needs no package'
        )
