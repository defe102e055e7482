"""The one training loop, for both phases and every ZeRO stage; runs on each worker.

Reads `base_model/` and `tokens/`, writes checkpoints and, at its end, the weights of `model/`.
"""

import math
import time
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
import torch
import torch.distributed
from deepspeed import DeepSpeedEngine
from ray.actor import ActorHandle

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import TrainingError
from asclepius_ray.tokens.store import read_documents
from asclepius_ray.training.batches import PackedRows, collate, summed_loss
from asclepius_ray.training.checkpoints import LoopState, restore_checkpoint, save_checkpoint
from asclepius_ray.training.config import PhaseConfig, TrainingConfig
from asclepius_ray.training.engine import start_engine
from asclepius_ray.training.export import export_model
from asclepius_ray.training.model import check_documents_are_apart, fetch_base_model
from asclepius_ray.training.order import document_order, micro_batches, step_rows, steps_per_epoch
from asclepius_ray.training.schedule import learning_rate


@dataclass(frozen=True)
class Job:
    """What the driver tells every worker."""

    root: Folder
    sequence_length: int
    training: TrainingConfig
    seed: int
    board: ActorHandle
    """The actor that carries metrics to the driver."""


@dataclass(frozen=True)
class Phase:
    """One phase with its rows."""

    index: int
    config: PhaseConfig
    train: PackedRows
    validation: PackedRows
    total_steps: int


def run(job: Job) -> None:
    """Trains from the newest checkpoint to the end and exports the model."""
    engine = start_engine(fetch_base_model(job.root, job.training), job.training, job.seed)
    check_documents_are_apart(engine.module, engine.device)
    phases = load_phases(job)
    trainer = Trainer(job, engine, restore_checkpoint(engine), phases)
    if not trainer.train():
        return
    export_model(engine.module, job.root.child("model"), job.training)


def load_phases(job: Job) -> list[Phase]:
    tokens = job.root.child("tokens")
    phases = []
    for index, config in enumerate(job.training.phases):
        documents = read_documents(tokens, config.kind, "train")
        order = document_order(len(documents), job.seed, index)
        train = PackedRows.pack(documents, order, job.sequence_length)
        held_out = read_documents(tokens, config.kind, "validation")
        validation = PackedRows.pack(held_out, list(range(len(held_out))), job.sequence_length)
        total = steps_per_epoch(len(train), job.training.global_batch) * config.epochs
        phases.append(Phase(index, config, train, validation, total))
    return phases


class Trainer:
    """The state of the loop on one worker."""

    def __init__(self, job: Job, engine: DeepSpeedEngine, state: LoopState, phases: list[Phase]) -> None:
        self.job = job
        self.engine = engine
        self.state = state
        self.phases = phases
        self.rank = torch.distributed.get_rank()
        self.workers = torch.distributed.get_world_size()
        self.accumulation = engine.gradient_accumulation_steps()
        self.stop_asked = False
        """The driver's wish; only rank 0 hears it."""
        self.stopping = False
        """What all ranks have agreed on."""

    def train(self) -> bool:
        """All phases from the state on; False if the driver asked to stop (a checkpoint is saved then)."""
        total = sum(phase.total_steps for phase in self.phases)
        self._send({"event": "start", "total_steps": total, "history": self.state.history})
        return all(self._train_phase(phase) for phase in self.phases[self.state.phase :])

    def _train_phase(self, phase: Phase) -> bool:
        if self.state.step == 0:
            # As in the paper, each phase is a training of its own that starts from the last one's weights.
            reset_moments(self.engine)
            self._record(phase, {"validation_loss": self.validation_loss(phase)})
        while self.state.step < phase.total_steps:
            self._train_step(phase)
            unsaved = self.state.step < phase.total_steps
            due = self.state.total_steps % self.job.training.checkpoint_steps == 0
            if unsaved and (due or self.stopping):
                save_checkpoint(self.engine, self.state, self.rank)
            if unsaved and self.stopping:
                return False
        self._record(phase, {"validation_loss": self.validation_loss(phase)})
        self.state.phase, self.state.step = phase.index + 1, 0
        save_checkpoint(self.engine, self.state, self.rank)
        return not self.stopping

    def _train_step(self, phase: Phase) -> None:
        started = time.monotonic()
        rows = step_rows(
            len(phase.train), self.job.training.global_batch, self.job.seed, phase.index, self.state.step
        )
        rate = learning_rate(
            self.state.step, phase.total_steps, phase.config.learning_rate, phase.config.warmup_ratio
        )
        # Dropout, where a model has any, is a function of the step too: a resumed run draws the same.
        torch.manual_seed(hash((self.job.seed, phase.index, self.state.step, self.rank)) % 2**63)
        loss = self.optimizer_step(phase.train, rows, rate)
        self.state.step += 1
        self.state.total_steps += 1
        values = {
            "loss": loss,
            "learning_rate": rate,
            "tokens": phase.train.tokens(rows),
            "seconds": round(time.monotonic() - started, 4),
        }
        self._record(phase, values)

    def optimizer_step(self, packed: PackedRows, rows: list[int], rate: float) -> float:
        """One step on these rows; returns the mean loss per target over all workers.

        DeepSpeed divides by accumulation steps and by workers; undoing both and dividing by the
        targets of the whole batch makes the gradient the same for every split of the same rows.
        """
        targets = packed.loss_tokens(rows)
        for group in self.engine.optimizer.param_groups:
            group["lr"] = rate
        shares = micro_batches(
            rows, self.accumulation, self.workers, self.rank, self.job.training.micro_batch
        )
        summed = torch.zeros((), device=self.engine.device)
        for number, share in enumerate(shares):
            loss = summed_loss(self.engine, collate(packed, share).to(self.engine.device))
            summed += loss.detach()
            self.engine.backward(loss * (self.workers * self.accumulation / targets))
            if number == len(shares) - 1:
                mean = self._sum_over_workers(summed) / targets
                self._require_finite(mean)
            self.engine.step()
        return mean

    def validation_loss(self, phase: Phase) -> float | None:
        """Mean loss per target of the held-out rows; None if there are none."""
        packed = phase.validation
        rows = list(range(len(packed)))
        if not rows:
            return None
        micro_batch = self.job.training.micro_batch
        count = math.ceil(len(rows) / (self.workers * micro_batch))
        summed = torch.zeros((), device=self.engine.device)
        self.engine.eval()
        with torch.no_grad():
            for share in micro_batches(rows, count, self.workers, self.rank, micro_batch):
                summed += summed_loss(self.engine, collate(packed, share).to(self.engine.device))
        self.engine.train()
        mean = self._sum_over_workers(summed) / packed.loss_tokens(rows)
        self._require_finite(mean)
        return mean

    def _sum_over_workers(self, value: torch.Tensor) -> float:
        # The wish to stop travels with the sum, so that all ranks learn of it at the same step.
        both = torch.stack([value.double(), torch.tensor(self.stop_asked, device=value.device).double()])
        torch.distributed.all_reduce(both)
        self.stopping = bool(both[1] > 0)
        return float(both[0])

    def _require_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss} after {self.state.total_steps} steps; lower the phase's learning_rate, "
                'or use precision = "fp32"'
            )

    def _record(self, phase: Phase, values: dict[str, Any]) -> None:
        line = {"phase": phase.config.kind, "step": self.state.total_steps, **values}
        self.state.history.append(line)
        self._send({"event": "metrics", "line": line})

    def _send(self, event: dict[str, Any]) -> None:
        if self.rank == 0 and ray.get(self.job.board.push.remote(event)):
            self.stop_asked = True


def reset_moments(engine: DeepSpeedEngine) -> None:
    """Sets AdamW's moments and step counts to zero.

    Needed before the very first step too: DeepSpeed's 16-bit optimizer of stage 0 takes an empty step when it
    is made, which would shrink the first updates by a quarter.
    """
    optimizer = getattr(engine.optimizer, "optimizer", engine.optimizer)
    for values in optimizer.state.values():
        for value in values.values():
            if torch.is_tensor(value):
                value.zero_()
