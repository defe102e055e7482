"""The folder of a LoRA adapter, as peft writes it."""

from pathlib import Path

from asclepius_ray.errors import ServingError

ADAPTER_CONFIG_NAME = "adapter_config.json"


def check_adapter_folder(adapter: str) -> None:
    """A ServingError if it is none."""
    if not (Path(adapter) / ADAPTER_CONFIG_NAME).is_file():
        raise ServingError(f"{adapter} is not a folder of a LoRA adapter: it has no {ADAPTER_CONFIG_NAME}")
