"""Logits of a few fixed rows, stored with a model: what is served must give them too.

The rows are made of token ids alone, so that no text of a patient is in the model's folder.
"""

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import ArtifactError

# In the format of safetensors, but not called so: vLLM reads every *.safetensors, *.bin and *.pt as weights.
REFERENCE_NAME = "reference_logits.tensors"
_ROWS, _POSITIONS = 4, 24
# Primes of no meaning: neighbouring ids would all be of one script, or bytes.
_STRIDE, _START = 7919, 104729


def reference_rows(vocabulary_size: int) -> torch.Tensor:
    """The ids, (rows, positions): the same for every model of this vocabulary's size."""
    numbers = torch.arange(_ROWS * _POSITIONS, dtype=torch.int64).reshape(_ROWS, _POSITIONS)
    return (numbers * _STRIDE + _START) % vocabulary_size


def pack_reference(logits: torch.Tensor) -> bytes:
    """The file's content: the rows, and the logits behind each of them, (rows, vocabulary).

    Their type is that of the training: it tells how exactly another computation can repeat them.
    """
    return bytes(save({"input_ids": reference_rows(logits.shape[1]), "logits": logits.contiguous()}))


def read_reference(folder: Folder) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The rows and their logits; None for a model that came without them."""
    if not folder.exists(REFERENCE_NAME):
        return None
    try:
        tensors = load(folder.read_bytes(REFERENCE_NAME))
        return tensors["input_ids"], tensors["logits"]
    except (SafetensorError, KeyError) as error:
        raise ArtifactError(
            f"{folder.uri}/{REFERENCE_NAME} is damaged; restore it, or train again"
        ) from error


def distribution_distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    """How far apart two models' next tokens are, from 0 to 1: the largest total variation of any row.

    It does not depend on the scale of the logits, so one limit holds for every model.
    """
    difference = found.float().softmax(-1) - expected.float().softmax(-1)
    return float(difference.abs().sum(-1).max() / 2)
