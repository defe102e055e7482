"""Runs a function on several ranks of a gloo process group, without Ray: the cheapest form of such a test."""

import os
import socket
from collections.abc import Callable
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
