"""What is served is what was trained: what a model says against the logits stored at its export."""

from pathlib import Path
from typing import Any

import torch

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import ServingError
from asclepius_ray.tokens.reference_logits import distribution_distance, read_reference

# Of another model's next tokens half and more differ. 16 bits are rounded otherwise by every kernel.
LIMIT_FP32, LIMIT_16_BITS = 0.01, 0.1


def stored_logits(folder: str) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The export's rows and the logits behind each, (rows, vocabulary); None for a model without them."""
    return read_reference(Folder(folder)) if Path(folder).is_dir() else None


def check_logits(model: Any, folder: str) -> None:
    """A ServingError if the model of the folder says other than it did when the training exported it.

    Nothing is checked for a model that came without such logits.
    """
    stored = stored_logits(folder)
    if stored is None:
        return
    rows, expected = stored
    with torch.no_grad():
        found = model(input_ids=rows.to(model.device), use_cache=False).logits[:, -1].cpu()
    compare_logits(found, expected, found.dtype, folder)


def compare_logits(
    found: torch.Tensor, expected: torch.Tensor, served_type: torch.dtype, folder: str
) -> None:
    """Logits or log-probabilities, (rows, vocabulary); a ServingError if they are of different models.

    `served_type` is that of the served model's weights: it tells how exactly it can repeat the export's.
    """
    exact = expected.dtype == served_type == torch.float32
    distance = distribution_distance(found, expected) if found.shape == expected.shape else 1.0
    if not distance <= (LIMIT_FP32 if exact else LIMIT_16_BITS):
        raise ServingError(
            f"{folder} does not say what the trained model said (the next tokens differ by {distance:.2f} of "
            "1), so its weights are not those of the export; restore them, or train again"
        )
