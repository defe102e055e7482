"""Replicas that are processes of their own, so that a test can kill one."""

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from proxy_here import wait_until

from asclepius_ray.serving.proxy.environment import free_port

PROGRAM = Path(__file__).with_name("streaming_replica.py")


@dataclass
class Replicas:
    """Some of them, each a process of its own."""

    ports: list[int] = field(default_factory=lambda: [free_port("127.0.0.1") for _ in range(3)])
    processes: dict[int, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def start(self) -> None:
        """Starts those that do not run."""
        for port in self.ports:
            if port not in self.processes or self.processes[port].poll() is not None:
                self.processes[port] = subprocess.Popen([sys.executable, PROGRAM, str(port)])
        wait_until(lambda: all(_asked(port) is not None for port in self.ports), "the replicas are up")

    def num_open(self) -> int:
        """How many streams they are sending."""
        return sum(_asked(port) or 0 for port in self.ports)

    def kill(self, process_id: int) -> None:
        [found] = [each for each in self.processes.values() if each.pid == process_id]
        found.kill()
        found.wait()

    def close(self) -> None:
        for each in self.processes.values():
            each.kill()
            each.wait()


def _asked(port: int) -> int | None:
    try:
        return int(httpx.get(f"http://127.0.0.1:{port}/", timeout=10).text)
    except httpx.HTTPError:
        return None
