"""This machine's Ray nodes, found among its processes: what they are called and which cluster they are of."""

from dataclasses import dataclass

import psutil

RAYLET = "raylet"


class RayAway(Exception):
    """Ray could not be told, for now."""


@dataclass(frozen=True)
class RayNode:
    """A raylet of this machine. It ends by itself once it is drained and has nothing to do."""

    node_id: str
    gcs_address: str
    pid: int


def find_ray_nodes(only: str = "") -> list[RayNode]:
    """The raylets that run here and that this user may see; `only` is the id of one of them."""
    found = []
    for process in psutil.process_iter(["name", "cmdline"]):
        # One that has ended and stays as a zombie, as in a container without an init process, has no command.
        if process.info["name"] == RAYLET:
            node = parse_raylet(process.info["cmdline"] or [], process.pid)
            if node and only in ("", node.node_id):
                found.append(node)
    return found


def parse_raylet(command: list[str], pid: int) -> RayNode | None:
    """Node and cluster, as a raylet's command line names them; None where it does not."""
    options = dict(part.removeprefix("--").split("=", 1) for part in command if "=" in part)
    node_id, gcs_address = options.get("node_id", ""), options.get("gcs-address", "")
    return RayNode(node_id, gcs_address, pid) if node_id and gcs_address else None
