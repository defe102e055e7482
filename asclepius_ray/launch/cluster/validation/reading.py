"""Reading a manifest that may hold anything: the wrong type reads as nothing there. Pure.

What has the wrong type is a finding of the schema; a rule must not fall over it.
"""

from typing import Any

from asclepius_ray.launch.cluster.yaml_text import Json


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
    """A quantity of Kubernetes' as a number, such as "8" of GPUs or "500m" of CPUs; 0 for what is none."""
    text = str(value)
    thousandths = text.endswith("m")
    try:
        return float(text.removesuffix("m")) / (1000 if thousandths else 1)
    except ValueError:
        return 0.0


def version_of(text: str) -> tuple[int, ...]:
    """A version's numbers; () where it is none."""
    parts = text.split(".")
    return tuple(map(int, parts)) if all(part.isdigit() for part in parts) else ()
