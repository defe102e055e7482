"""How many threads a worker computes with on a CPU.

Ray tells every process to use as many as the CPUs that it has reserved, which is one for a worker: training
alone on a machine of many cores it would leave all others idle.
"""

import os
import socket
from pathlib import Path

import torch
import torch.distributed

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def use_own_cores(threads: int) -> None:
    """Sets torch's threads: as many as asked for, or for 0 a fair share of the machine's cores.

    Every rank must call it, on the process group that Ray Train has opened.
    """
    hosts: list[str | None] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(hosts, socket.gethostname())
    torch.set_num_threads(threads or share_of_cores(usable_cores(), hosts.count(socket.gethostname())))


def share_of_cores(cores: int, workers: int) -> int:
    """The cores of each of so many workers on one machine, at least one."""
    return max(1, cores // workers)


def usable_cores(quota: Path = _QUOTA) -> int:
    """Cores that this process may use, whatever the machine has: a container may get only a part of them."""
    cores = len(os.sched_getaffinity(0))
    if not quota.exists():
        return cores
    microseconds, _, period = quota.read_text().partition(" ")
    return cores if microseconds == "max" else max(1, min(cores, int(microseconds) // int(period)))
