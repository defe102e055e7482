"""The parts of a file of `ray up` that rules speak of. Pure."""

from collections.abc import Callable, Iterator

from asclepius_ray.launch.cluster.validation.findings import Trouble
from asclepius_ray.launch.cluster.validation.reading import list_at, table_at, text_at, value_at
from asclepius_ray.launch.cluster.yaml_text import Json

STARTS = ("head_start_ray_commands", "worker_start_ray_commands")
LauncherRule = Callable[[Json], Iterator[Trouble]]


def cloud_of(launcher: Json) -> str:
    """The cloud as Ray calls it, such as "aws" or "gcp"."""
    return text_at(launcher, "provider", "type")


def types_of(launcher: Json) -> dict[str, Json]:
    """Each type of node by its path."""
    kinds = table_at(launcher, "available_node_types")
    return {f"available_node_types.{name}": kind for name, kind in kinds.items() if isinstance(kind, dict)}


def workers_of(launcher: Json) -> dict[str, Json]:
    """Each type of node but the head's by its path."""
    head = f"available_node_types.{text_at(launcher, 'head_node_type')}"
    return {path: kind for path, kind in types_of(launcher).items() if path != head}


def texts_at(launcher: Json, *keys: str) -> list[str]:
    """The texts of a list, such as commands."""
    return [text for text in list_at(launcher, *keys) if isinstance(text, str)]


def is_spot(node: Json) -> bool:
    """Whether the cloud may take away a machine with this node_config."""
    return is_spot_of_aws(node) or any(map(is_preemptible, schedulings_of(node)))


def is_spot_of_aws(node: Json) -> bool:
    """Whether EC2 may take it away, also where the market is misspelt."""
    return text_at(node, "InstanceMarketOptions", "MarketType").lower() == "spot"


def schedulings_of(node: Json) -> list[Json]:
    """The tables of `scheduling`: one as Google Cloud has it, or in a list as Ray's examples do."""
    found = list_at(node, "scheduling") or [table_at(node, "scheduling")]
    return [table for table in found if isinstance(table, dict)]


def is_preemptible(scheduling: Json) -> bool:
    """Whether Google Cloud may take away a machine with this `scheduling`."""
    is_new_spot = value_at(scheduling, "provisioningModel") == "SPOT"
    return is_new_spot or bool(value_at(scheduling, "preemptible"))
