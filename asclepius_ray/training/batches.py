"""Packed documents → the tensors of one micro-batch.

A model keeps the documents of a row apart only if it is called with `position_ids` that restart at each
document, no attention mask and no cache: with either of the two, transformers lets them see each other.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch

from asclepius_ray.tokens.packing import pack_documents
from asclepius_ray.tokens.store import Documents
from asclepius_ray.training.order import PADDING_ROW

SHORTEST_ROW = 8
FINGERPRINTS = 1 << 40
"""So few that thousands of them can be summed up in float64 without rounding."""


@dataclass(frozen=True)
class PackedRows:
    """Documents, and which of them make each row."""

    documents: Documents
    rows: list[list[int]]

    @classmethod
    def pack(cls, documents: Documents, order: list[int], sequence_length: int) -> "PackedRows":
        packed = pack_documents([documents.lengths[index] for index in order], sequence_length)
        return cls(documents, [[order[position] for position in row] for row in packed])

    def __len__(self) -> int:
        return len(self.rows)

    def loss_tokens(self, rows: list[int]) -> int:
        """Targets of these rows over all workers: what a step's loss is divided by."""
        counts = self.documents.loss_tokens
        return sum(counts[index] for row in rows if row != PADDING_ROW for index in self.rows[row])

    def tokens(self, rows: list[int]) -> int:
        return sum(self.document_lengths(rows))

    def document_lengths(self, rows: list[int]) -> list[int]:
        """Tokens of every document in these rows."""
        lengths = self.documents.lengths
        return [lengths[index] for row in rows if row != PADDING_ROW for index in self.rows[row]]

    def positions(self, rows: list[int]) -> int:
        """Positions of one micro-batch of these rows, those of its padding included."""
        return len(rows) * max(SHORTEST_ROW, *(self.tokens([row]) for row in rows))

    def fingerprint(self, rows: list[int]) -> int:
        """A number that tells which documents are in these rows, whatever the order of the rows.

        The sum over the parts of a batch, modulo `FINGERPRINTS`, is the fingerprint of the batch.
        """
        digests = (_digest(self.rows[row]) for row in rows if row != PADDING_ROW)
        return sum(int.from_bytes(digest, "big") for digest in digests) % FINGERPRINTS


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


def _digest(documents: list[int]) -> bytes:
    return hashlib.blake2b(np.array(documents, dtype=np.int64).tobytes(), digest_size=5).digest()


def collate(packed: PackedRows, rows: list[int]) -> Batch:
    """The rows as tensors, as long as the longest of them; padding is one more document without loss."""
    shape = (len(rows), packed.positions(rows) // len(rows))
    ids, mask = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.bool_)
    positions = np.zeros(shape, dtype=np.int64)
    for line, row in enumerate(rows):
        start = 0
        for index in packed.rows[row] if row != PADDING_ROW else []:
            tokens, targets = packed.documents.tokens(index)
            end = start + len(tokens)
            ids[line, start:end], mask[line, start:end] = tokens, targets
            positions[line, start:end] = np.arange(len(tokens))
            start = end
        positions[line, start:] = np.arange(shape[1] - start)
    return Batch(torch.from_numpy(ids), torch.from_numpy(positions), torch.from_numpy(mask))


def summed_loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """The sum (not the mean) of the targets' negative log-likelihoods, in 32 bits."""
    logits = model(
        input_ids=batch.input_ids, position_ids=batch.position_ids, attention_mask=None, use_cache=False
    ).logits
    losses = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), batch.input_ids[:, 1:].flatten(), reduction="none"
    )
    return (losses * batch.targets[:, 1:].flatten()).sum()
