"""Runs a function on several ranks of a gloo process group: without Ray, which is cheapest, or with it."""

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def run_on_ranks(function: Callable[..., None], world: int, *arguments: Any) -> None:
    """Calls `function(rank, *arguments)` in `world` processes at once; raises what any of them raised.

    The function must lie at the top of a module: the processes import it by name.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(_enter, args=(world, port, function, arguments), nprocs=world)


def run_on_ray_workers(
    function: Callable[[dict[str, Any]], None], workers: int, settings: dict[str, Any], folder: Path
) -> None:
    """Calls `function(settings)` on each worker of Ray Train, on the cluster that is open.

    The function's module travels with it. In a thread, as the product does: Ray would take the main thread's
    Ctrl-C for itself, and never give it back.
    """
    from ray import cloudpickle
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig

    from asclepius_ray.training.fitting import FitThread, IsolatedTrainer

    cloudpickle.register_pickle_by_value(sys.modules[function.__module__])
    trainer = IsolatedTrainer(
        function,
        train_loop_config=settings,
        scaling_config=ScalingConfig(num_workers=workers),
        torch_config=TorchConfig(backend="gloo", timeout_s=60),
        run_config=RunConfig(name=f"run-{workers}", storage_path=str(folder / "ray")),
    )
    thread = FitThread(trainer)
    thread.start()
    thread.join()
    if thread.failure is not None:
        raise thread.failure
    assert thread.succeeded


def _enter(
    rank: int, world: int, port: int, function: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in names.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "DS_ACCELERATOR": "cpu"}
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    function(rank, *arguments)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
