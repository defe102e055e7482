"""Packed documents → the tensors of one micro-batch.

A model keeps the documents of a row apart only if it is called with `position_ids` that restart at each
document, no attention mask and no cache: with either of the two, transformers lets them see each other.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from asclepius_ray.tokens.packing import Packing
from asclepius_ray.tokens.store import Documents
from asclepius_ray.training.order import PADDING_ROW

SHORTEST_ROW = 8
FINGERPRINTS = 1 << 40
"""So few that thousands of them can be summed up in float64 without rounding."""


@dataclass(frozen=True)
class PackedRows:
    """Documents, and which of them make each row."""

    documents: Documents
    packing: Packing

    def __len__(self) -> int:
        return len(self.packing)

    def loss_tokens(self, rows: Sequence[int]) -> int:
        """Targets of these rows over all workers: what a step's loss is divided by."""
        return int(self._loss_tokens[_real(rows)].sum())

    def tokens(self, rows: Sequence[int]) -> int:
        return int(self._tokens[_real(rows)].sum())

    def document_lengths(self, rows: Sequence[int]) -> list[int]:
        """Tokens of every document in these rows."""
        lengths = self.documents.index.tokens
        return [length for row in _real(rows) for length in lengths[self.packing.row(row)].tolist()]

    def positions(self, rows: Sequence[int]) -> int:
        """Positions of one micro-batch of these rows, those of its padding included."""
        return len(rows) * max(SHORTEST_ROW, *(self.tokens([row]) for row in rows))

    def fingerprint(self, rows: Sequence[int]) -> int:
        """A number that tells which documents are in these rows, whatever the order of the rows.

        The sum over the parts of a batch, modulo `FINGERPRINTS`, is the fingerprint of the batch.
        """
        digests = (_digest(self.packing.row(row)) for row in _real(rows))
        return sum(int.from_bytes(digest, "big") for digest in digests) % FINGERPRINTS

    @cached_property
    def _tokens(self) -> npt.NDArray[np.int64]:
        return self.packing.sums(self.documents.index.tokens)

    @cached_property
    def _loss_tokens(self) -> npt.NDArray[np.int64]:
        return self.packing.sums(self.documents.index.loss_tokens)


def _real(rows: Sequence[int]) -> list[int]:
    return [row for row in rows if row != PADDING_ROW]


def _digest(documents: npt.NDArray[np.int32]) -> bytes:
    return hashlib.blake2b(documents.astype(np.int64).tobytes(), digest_size=5).digest()


@dataclass(frozen=True)
class Batch:
    """One micro-batch, each tensor of shape (rows, positions); `targets` is True where loss is paid."""

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    targets: torch.Tensor

    def to(self, device: torch.device) -> "Batch":
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in vars(self).values()))

    def pinned(self) -> "Batch":
        """In memory that a GPU reads by itself, so that the copy to it runs beside the computation."""
        return Batch(*(tensor.pin_memory() for tensor in vars(self).values()))


def collate(packed: PackedRows, rows: Sequence[int]) -> Batch:
    """The rows as tensors, as long as the longest of them; padding is one more document without loss."""
    shape = (len(rows), packed.positions(rows) // len(rows))
    ids, mask = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.bool_)
    positions = np.zeros(shape, dtype=np.int64)
    for line, row in enumerate(rows):
        start = 0
        for number in packed.packing.row(row).tolist() if row != PADDING_ROW else []:
            tokens, targets = packed.documents.tokens(number)
            end = start + len(tokens)
            ids[line, start:end], mask[line, start:end] = tokens, targets
            positions[line, start:end] = np.arange(len(tokens))
            start = end
        positions[line, start:] = np.arange(shape[1] - start)
    return Batch(torch.from_numpy(ids), torch.from_numpy(positions), torch.from_numpy(mask))


def collate_alone(packed: PackedRows, number: int) -> Batch:
    """One document as a row of its own, without padding."""
    tokens, targets = packed.documents.tokens(number)
    columns = (tokens.astype(np.int64), np.arange(len(tokens)), targets)
    return Batch(*(torch.from_numpy(column[None]) for column in columns))


def summed_loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """The sum (not the mean) of the targets' negative log-likelihoods, in 32 bits."""
    logits = model(
        input_ids=batch.input_ids, position_ids=batch.position_ids, attention_mask=None, use_cache=False
    ).logits
    losses = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), batch.input_ids[:, 1:].flatten(), reduction="none"
    )
    return (losses * batch.targets[:, 1:].flatten()).sum()
