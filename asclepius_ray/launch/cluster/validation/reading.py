"""Reading a manifest that may hold anything: the wrong type reads as nothing there. Pure.

What has the wrong type is a finding of the schema; a rule must not fall over it.
"""

import math
from decimal import Decimal
from typing import Any

from asclepius_ray.launch.cluster.yaml_text import Json

_PREFIXES = "kMGTPE"
_FACTORS = (
    {"m": Decimal("0.001")}
    | {prefix: Decimal(1000**power) for power, prefix in enumerate(_PREFIXES, 1)}
    | {f"{prefix.upper()}i": Decimal(1024**power) for power, prefix in enumerate(_PREFIXES, 1)}
)


def value_at(value: Any, *keys: str) -> Any:
    """What stands under the keys; None where there is nothing."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def table_at(value: Any, *keys: str) -> Json:
    """The mapping under the keys, {} where there is none."""
    found = value_at(value, *keys)
    return found if isinstance(found, dict) else {}


def list_at(value: Any, *keys: str) -> list[Any]:
    """The list under the keys, [] where there is none."""
    found = value_at(value, *keys)
    return found if isinstance(found, list) else []


def text_at(value: Any, *keys: str) -> str:
    """The text under the keys, "" where there is none."""
    found = value_at(value, *keys)
    return found if isinstance(found, str) else ""


def number_at(value: Any, *keys: str, default: float = 0) -> float:
    """The number under the keys; `default` where there is none."""
    found = value_at(value, *keys)
    return found if isinstance(found, int | float) and not isinstance(found, bool) else default


def flag_at(value: Any, *keys: str) -> bool:
    """Whether `true` stands under the keys."""
    return value_at(value, *keys) is True


def amount(value: object) -> float:
    """A quantity of Kubernetes' as a number, such as "8" of GPUs, "500m" of CPUs or "16Gi"; 0 for what is
    none."""
    text = str(value)
    unit = text.lstrip("+-.0123456789")
    number, factor = (text.removesuffix(unit), _FACTORS[unit]) if unit in _FACTORS else (text, Decimal(1))
    try:
        found = float(Decimal(number) * factor)
    except ArithmeticError:
        return 0.0
    return found if math.isfinite(found) else 0.0


def version_of(text: str) -> tuple[int, ...]:
    """A version's numbers; () where it is none."""
    parts = text.split(".")
    return tuple(map(int, parts)) if all(part.isdigit() for part in parts) else ()
