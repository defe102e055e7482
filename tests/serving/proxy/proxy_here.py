"""HAProxy as Ray Serve would start it, here: Ray's own configuration, our program in HAProxy's place."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from canaries import leaking_files
from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig
from ray.serve.config import HTTPOptions

from asclepius_ray.serving.proxy.environment import free_port, make_folder, new_folder, remove_folder
from asclepius_ray.serving.proxy.launch import BIND_VARIABLE

PATIENCE_SECONDS = 30.0
ACTOR = "import subprocess, sys; subprocess.run(sys.argv[1:])"


def write_configuration(folder: Path, ports: list[int]) -> Path:
    """What Ray 2.60 writes for replicas at these ports; with none, for no application at all."""
    settings = HAProxyConfig(
        socket_path=str(folder / "admin.sock"),
        server_state_base=str(folder),
        server_state_file=str(folder / "server-state"),
        metrics_enabled=False,
        health_check_inter="1s",  # as we have it; a check that takes longer finds the replica down
        health_check_fastinter="100ms",
        has_received_routes=True,
        has_received_servers=True,
        is_head=True,
        http_options=HTTPOptions(host="127.0.0.1", port=free_port("127.0.0.1")),
    )
    servers = [ServerConfig(f"replica-{port}", "127.0.0.1", port) for port in ports]
    spare = ServerConfig("spare", "127.0.0.1", free_port("127.0.0.1"))
    application = BackendConfig(
        name="http-model", path_prefix="/", app_name="model", servers=servers, fallback_server=spare
    )
    path = folder / "haproxy.cfg"
    # Ray gives no other way to what it writes.
    HAProxyApi(settings, {"model": application} if ports else {}, str(path))._generate_config_file_internal()
    return path


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    give_up = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < give_up, f"not within {PATIENCE_SECONDS} s: {what}"
        time.sleep(0.02)


@dataclass
class ProxyHere:
    """One running HAProxy with its guard, and the process that stands for Ray's proxy actor."""

    folder: Path = field(default_factory=new_folder)
    port: int = field(default_factory=lambda: free_port("127.0.0.1"))
    actors: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, replica_ports: list[int], actor: str = ACTOR) -> None:
        """Starts an actor that starts HAProxy; returns once the replicas are led to."""
        if not self.folder.exists():
            make_folder(self.folder)
        configuration = write_configuration(self.folder, replica_ports)
        command = [str(self.folder / "haproxy"), "-db", "-f", str(configuration)]
        with (self.folder / "haproxy.log").open("ab") as log:
            self.actors.append(
                subprocess.Popen(
                    [sys.executable, "-c", actor, *command],
                    env={**os.environ, BIND_VARIABLE: f"127.0.0.1:{self.port}"},
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )
        self.wait_for(replica_ports)

    def wait_for(self, replica_ports: list[int]) -> None:
        servers = [f"http-model,replica-{port}" for port in replica_ports]
        wait_until(lambda: all(self.is_up(server) for server in servers), "HAProxy sees the replicas")

    def is_up(self, server: str) -> bool:
        """Whether HAProxy leads requests to it: `asclepius_guard,guard`, `http-model,replica-PORT`."""
        with socket.socket(socket.AF_UNIX) as admin:
            try:
                admin.connect(str(self.folder / "admin.sock"))
            except (FileNotFoundError, ConnectionRefusedError):
                return False
            admin.sendall(b"show stat -1 4 -1\n")
            with admin.makefile() as lines:
                return any(line.startswith(f"{server},") and ",UP," in line for line in lines)

    def wait_for_guard(self) -> None:
        wait_until(lambda: self.is_up("asclepius_guard,guard"), "HAProxy sees the guard")

    def guards(self) -> list[psutil.Process]:
        """The keepers and guards of this folder that run, keepers first."""
        found = [each for each in psutil.process_iter(["cmdline"]) if self._is_guard(each.info["cmdline"])]
        return sorted(found, key=lambda each: each.pid)

    def _is_guard(self, command: list[str] | None) -> bool:
        return (
            bool(command) and str(self.folder) in command and any("proxy.guard" in part for part in command)
        )

    def end_actor(self) -> None:
        """Ends the actor and its HAProxy at once, and nothing of the guard."""
        actor = self.actors[-1]
        os.killpg(actor.pid, signal.SIGKILL)
        actor.wait()

    def haproxies(self) -> list[psutil.Process]:
        """The HAProxys of this folder that run."""
        found = psutil.process_iter(["name", "cmdline"])
        configuration = str(self.folder / "haproxy.cfg")
        return [
            each
            for each in found
            if each.info["name"] == "haproxy" and configuration in (each.info["cmdline"] or [])
        ]

    def close(self) -> None:
        for actor in self.actors:
            if actor.poll() is None:
                os.killpg(actor.pid, signal.SIGKILL)
                actor.wait()
        wait_until(lambda: not self.guards(), "the guard ends with the proxy")
        wait_until(lambda: not self.haproxies(), "HAProxy ends with the proxy")
        leaks = leaking_files(self.folder)
        remove_folder(self.folder)
        assert leaks == [], f"HAProxy's folder holds patients' text: {leaks}"
