"""What an artefact was made from against what the run file says now."""

from typing import Any

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import StageChangedError


def refuse_change(found: dict[str, Any], wanted: dict[str, Any], folder: Folder) -> None:
    """A StageChangedError that names the settings that differ."""
    before, now = _flat(found), _flat(wanted)
    changed = [
        f"  {name}: {before.get(name)!r} -> {now.get(name)!r}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]
    if changed:
        raise StageChangedError(
            f"{folder.uri} was made with other settings:\n" + "\n".join(changed) + "\n"
            "set them back, use another root, or use --redo train to train anew"
        )


def _flat(values: dict[str, Any] | list[Any] | tuple[Any, ...], prefix: str = "") -> dict[str, Any]:
    pairs = values.items() if isinstance(values, dict) else enumerate(values)
    flat: dict[str, Any] = {}
    for key, value in pairs:
        path = f"{prefix}{key}"
        flat |= _flat(value, f"{path}.") if isinstance(value, dict | list | tuple) else {path: value}
    return flat
