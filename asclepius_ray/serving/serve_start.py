"""Ray Serve, started or found: its address, and what must be taken away when it ends.

For the job `serve` HAProxy stands in front (`proxy/`): it leads each request straight to a replica. Models
that are opened for the time of a stage stand behind Serve's own proxy, which is up sooner and needs nothing
on disk.
"""

import logging
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import ray
from ray import serve
from ray._common.network_utils import get_localhost_ip
from ray.serve.context import _get_global_client
from ray.serve.schema import LoggingConfig
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from asclepius_ray.errors import ConfigError, ServingError
from asclepius_ray.progress import Progress
from asclepius_ray.serving.access.tls import check_tls
from asclepius_ray.serving.config import ServingConfig
from asclepius_ray.serving.proxy.environment import (
    free_port,
    make_folder,
    new_folder,
    proxy_variables,
    remove_folder,
)
from asclepius_ray.serving.reasons import reason
from asclepius_ray.serving.serve_record import ServeStart, record_start, recorded_start

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class RunningServe:
    """Where Serve listens, and HAProxy's folder on the head node, if it has one."""

    address: str
    proxy_folder: Path | None = None

    def forget(self) -> None:
        """Takes HAProxy's folder away, once Serve has ended."""
        if self.proxy_folder is not None:
            _on_head(remove_folder, self.proxy_folder)


def start_serve(config: ServingConfig, progress: Progress) -> RunningServe:
    """Starts Serve with one proxy on the head node, or finds the one that runs.

    With port 0 any address will do: that of the Serve which runs already, or the head node's own where
    loopback would not be reached from here. Without it the configured one is meant, and no other.
    """
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    head = head_node()
    on_head = head["NodeID"] == ray.get_runtime_context().get_node_id()
    if _get_global_client(raise_if_no_controller_running=False) is not None:
        return _find_serve(config, head, on_head)
    is_encrypted = check_tls(config.tls_certificate, config.tls_key)
    host = _reachable_host(config, head, on_head)
    port = config.port or _on_head(free_port, host)
    running = RunningServe(
        _address(host, port, head, is_encrypted), new_folder() if config.proxy == "haproxy" else None
    )
    with ExitStack() as undone:  # in the order from its end
        undone.callback(running.forget)
        # What it has started already would be found by the next run, and lead nowhere.
        undone.callback(serve.shutdown)
        try:
            if running.proxy_folder is None:
                _start_plain(config, host, port)
            else:
                _on_head(make_folder, running.proxy_folder)
                _start_behind_haproxy(config, (host, port), running.address, running.proxy_folder, progress)
        except (RuntimeError, TimeoutError, ray.exceptions.RayError) as error:
            raise ServingError(
                f"Ray Serve cannot listen on {host}:{port}: {reason(str(error))}; choose another "
                "serving.port, or 0 for any free one"
            ) from None
        record_start(_start_to_record(config, running))
        undone.pop_all()
    return running


def _start_to_record(config: ServingConfig, running: RunningServe) -> ServeStart:
    if running.proxy_folder is None:
        tls = {"tls_certificate": config.tls_certificate, "tls_key": config.tls_key}
        return ServeStart(proxy="serve", **tls)
    return ServeStart(
        proxy="haproxy",
        tls_certificate=config.tls_certificate,
        tls_key=config.tls_key,
        drain_seconds=config.drain_seconds,
        proxy_folder=str(running.proxy_folder),
    )


def _start_plain(config: ServingConfig, host: str, port: int) -> None:
    tls = {"ssl_certfile": config.tls_certificate, "ssl_keyfile": config.tls_key}
    _start({"host": host, "port": port, **(tls if config.tls_certificate else {})}, {})


def _start_behind_haproxy(
    config: ServingConfig, bind: tuple[str, int], address: str, folder: Path, progress: Progress
) -> None:
    """Replicas listen where HAProxy reaches them: on loopback, or on every interface of several nodes.

    Their own ports, 30000 and up, answer as the open one does, to a key alone, but never under TLS.
    """
    # HAProxy reaches the replicas of its own node there.
    inner = get_localhost_ip() if _stays_on_one_node(config) else "0.0.0.0"
    tls = (config.tls_certificate, config.tls_key) if config.tls_certificate else None
    if tls and inner == "0.0.0.0":
        progress.say(
            "warning: TLS ends at the head node: between the nodes requests are plain HTTP, and each "
            "replica's port, 30000 and up, takes them so; let nobody but the nodes reach those ports"
        )
    host, port = bind
    variables = proxy_variables(folder, f"{host}:{port}", tls, config.drain_seconds)
    # Serve's own proxy, which nobody is led to, would take a fixed port.
    variables["RAY_SERVE_FALLBACK_PROXY_HTTP_PORT"] = str(_on_head(free_port, host))
    # Serve itself does not know what HAProxy listens on; whoever finds it running reads it there.
    _start({"host": inner, "port": port, "root_url": address}, variables)


def _stays_on_one_node(config: ServingConfig) -> bool:
    """Whether every replica will run beside HAProxy: on a single node that has room for all of them.

    A replica of a node that joins later could not be reached on that node's loopback, so a cluster that
    an autoscaler watches, or whose only node cannot hold the replicas, counts as one of several nodes.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    grows = ray._private.state.state.get_max_resources_from_cluster_config() is not None
    num_replicas = (1 + len(config.models)) * config.replicas.most
    # Where there are fewer GPUs than replicas, they share them.
    num_gpus = config.tensor_parallel if config.use_gpu else 0
    has_room = nodes[0].get("CPU", 0) >= num_replicas and nodes[0].get("GPU", 0) >= num_gpus
    return len(nodes) == 1 and not grows and has_room


def _start(http_options: dict[str, Any], variables: dict[str, str]) -> None:
    serve.start(
        proxy_location="HeadOnly",
        http_options=http_options,
        logging_config=LoggingConfig(log_level="WARNING", enable_access_log=False),
        controller_options={"runtime_env": {"env_vars": variables}} if variables else None,
    )


def _find_serve(config: ServingConfig, head: dict[str, Any], on_head: bool) -> RunningServe:
    options = _get_global_client().http_config
    found = options.root_url or _address(options.host, options.port, head, bool(options.ssl_certfile))
    wanted = _address(config.host, config.port, head, bool(config.tls_certificate))
    if config.port and found != wanted:
        raise ServingError(
            f"Ray Serve already listens on {found} on this cluster, not on {wanted}; set serving.host, "
            "serving.port and the TLS files to it, or end it with `serve shutdown`"
        )
    if urlsplit(found).hostname in LOOPBACK_HOSTS and not on_head:
        raise ServingError(
            f"Ray Serve already listens on {found} of the cluster's head node, and this process is on "
            "another one; end that Serve with `serve shutdown`"
        )
    start = recorded_start()
    tls, wanted_tls = (start.tls_certificate, start.tls_key), (config.tls_certificate, config.tls_key)
    if config.tls_certificate and tls != wanted_tls:
        raise ServingError(
            f"Ray Serve already runs on this cluster with {' and '.join(tls) if any(tls) else 'no TLS'}, not "
            f"with {' and '.join(wanted_tls)}; new files under its own paths are read at the next redeploy, "
            "other paths only by a Serve that is started anew: end it with `serve shutdown`"
        )
    return RunningServe(found, Path(start.proxy_folder) if start.proxy_folder else None)


def differences(config: ServingConfig) -> list[str]:
    """What the Serve that runs does otherwise than these settings say, as it was started before them."""
    start = recorded_start()
    found = []
    if config.proxy == "haproxy" and start.proxy != "haproxy":
        found.append(
            'Ray Serve runs without HAProxy (serving.proxy = "haproxy" is for its start): the streams of a '
            "replica that is killed end without an error event"
        )
    if 0 < start.drain_seconds < config.drain_seconds:
        found.append(
            f"HAProxy ends streams as it was started, for serving.drain_seconds = {start.drain_seconds:g}; "
            f"{config.drain_seconds:g} is more"
        )
    return found


def _reachable_host(config: ServingConfig, head: dict[str, Any], on_head: bool) -> str:
    if config.host not in LOOPBACK_HOSTS or on_head:
        return config.host
    if config.port:
        raise ConfigError(
            f"serving.host = {config.host} can be reached from the cluster's head node alone, and this "
            'process is on another one; set serving.host = "0.0.0.0"'
        )
    found: str = head["NodeManagerAddress"]
    return found


def head_node() -> dict[str, Any]:
    """What Ray says of the living head node."""
    heads = [node for node in ray.nodes() if node["Alive"] and "node:__internal_head__" in node["Resources"]]
    if not heads:
        raise ServingError("the cluster has no living head node to listen on")
    found: dict[str, Any] = heads[0]
    return found


def _on_head(function: Any, argument: Any) -> Any:
    strategy = NodeAffinitySchedulingStrategy(head_node()["NodeID"], soft=False)
    return ray.get(ray.remote(num_cpus=0, scheduling_strategy=strategy)(function).remote(argument))


def _address(host: str, port: int, head: dict[str, Any], is_encrypted: bool) -> str:
    name = head["NodeManagerAddress"] if host in ("0.0.0.0", "::") else host
    scheme = "https" if is_encrypted else "http"
    return f"{scheme}://[{name}]:{port}" if ":" in name else f"{scheme}://{name}:{port}"
