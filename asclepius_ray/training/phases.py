"""A token store and `[training]` → the phases, each with the rows of all its steps."""

from dataclasses import dataclass, field
from pathlib import Path

from asclepius_ray.tokens.packing import RowPlan, pack_in_order, plan_rows
from asclepius_ray.tokens.store import Documents, open_documents
from asclepius_ray.training.batches import PackedRows
from asclepius_ray.training.config import PhaseConfig, TrainingConfig
from asclepius_ray.training.order import batch_rows, pack_epoch, steps_per_epoch


@dataclass(frozen=True)
class Phase:
    """One phase: its documents, and which rows of which epoch make each step."""

    index: int
    config: PhaseConfig
    documents: Documents
    plan: RowPlan
    """The rows by the lengths of their documents, the same in every epoch."""
    validation: PackedRows
    global_batch: int
    seed: int
    _packed: dict[int, PackedRows] = field(default_factory=dict, repr=False, compare=False)

    @property
    def steps_per_epoch(self) -> int:
        return steps_per_epoch(len(self.plan), self.global_batch)

    @property
    def total_steps(self) -> int:
        return self.steps_per_epoch * self.config.epochs

    def batch(self, step: int) -> tuple[PackedRows, list[int]]:
        """The global batch of a step (from 0, over all epochs of the phase): an epoch and rows of it."""
        if not 0 <= step < self.total_steps:
            raise ValueError(f"step {step} of a phase of {self.total_steps} steps")
        epoch, batch = divmod(step, self.steps_per_epoch)
        packed = self._epoch(epoch)
        return packed, batch_rows(len(packed), self.global_batch, batch)

    def _epoch(self, number: int) -> PackedRows:
        """The epoch's rows; packed when its first step is asked for, and kept until the next one's."""
        if number not in self._packed:
            packing = pack_epoch(self.plan, self.documents.index.tokens, self.seed, self.index, number)
            self._packed.clear()
            self._packed[number] = PackedRows(self.documents, packing)
        return self._packed[number]


def load_phases(store: Path, sequence_length: int, training: TrainingConfig, seed: int) -> list[Phase]:
    """All phases over a token store that lies on this machine; no token is read for it."""
    phases = []
    for index, config in enumerate(training.phases):
        documents = open_documents(store, config.kind, "train")
        plan = plan_rows(documents.index.tokens, sequence_length)
        held_out = open_documents(store, config.kind, "validation")
        validation = PackedRows(held_out, pack_in_order(held_out.index.tokens, sequence_length))
        phases.append(Phase(index, config, documents, plan, validation, training.global_batch, seed))
    return phases
