"""What is served is what was trained: the loaded model against the logits stored at its export."""

from pathlib import Path
from typing import Any

import torch

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import ServingError
from asclepius_ray.tokens.reference_logits import distribution_distance, read_reference

# Of another model's next tokens half and more differ. 16 bits are rounded otherwise by every kernel.
LIMIT_FP32, LIMIT_16_BITS = 0.01, 0.1


def check_logits(model: Any, folder: Path) -> None:
    """A ServingError if the model of the folder says other than it did when the training exported it.

    Nothing is checked for a model that came without such logits.
    """
    stored = read_reference(Folder(str(folder)))
    if stored is None:
        return
    rows, expected = stored
    with torch.no_grad():
        found = model(input_ids=rows.to(model.device), use_cache=False).logits[:, -1].cpu()
    exact = expected.dtype == found.dtype == torch.float32
    distance = distribution_distance(found, expected) if found.shape == expected.shape else 1.0
    if not distance <= (LIMIT_FP32 if exact else LIMIT_16_BITS):
        raise ServingError(
            f"{folder} does not say what the trained model said (the next tokens differ by {distance:.2f} of "
            "1), so its weights are not those of the export; restore them, or train again"
        )
