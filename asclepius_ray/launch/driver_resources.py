"""What a job's driver takes of the cluster, as `ray job submit` calls it."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from asclepius_ray.errors import ConfigError


@dataclass(frozen=True)
class DriverResources:
    """Nothing at all = the driver runs on the head; else on a node that has so much free."""

    num_cpus: float = 0.0
    num_gpus: float = 0.0
    memory_bytes: int = 0
    custom: Mapping[str, float] = field(default_factory=dict)
    """The cluster's own resources by name."""

    @property
    def said(self) -> str:
        """What is taken, as a user reads it; "" = nothing."""
        memory = f"{self.memory_bytes} bytes of memory" if self.memory_bytes else ""
        taken = [f"{self.num_cpus:g} CPUs" if self.num_cpus else ""]
        taken += [f"{self.num_gpus:g} GPUs" if self.num_gpus else "", memory]
        taken += [f"{amount:g} of {name}" for name, amount in self.custom.items()]
        return ", ".join(filter(None, taken))


ON_THE_HEAD = DriverResources()


def read_driver_resources(
    num_cpus: float, num_gpus: float, memory_bytes: int, custom: str
) -> DriverResources:
    """The options of the command line; `custom` is a JSON object of numbers, "" = none.

    A ConfigError says which is no amount.
    """
    for option, amount in {"num-cpus": num_cpus, "num-gpus": num_gpus, "memory": memory_bytes}.items():
        if not (math.isfinite(amount) and amount >= 0):
            raise ConfigError(f"--entrypoint-{option} is {amount:g}; give 0 or more, or leave it out")
    return DriverResources(num_cpus, num_gpus, memory_bytes, _read_custom(custom) if custom else {})


def _read_custom(text: str) -> dict[str, float]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        found = None
    if not isinstance(found, dict) or not all(_is_amount(amount) for amount in found.values()):
        raise ConfigError(
            f"--entrypoint-resources is {text!r}; give a JSON object of positive numbers, such as "
            "'{\"driver\": 1}'"
        )
    return found


def _is_amount(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
