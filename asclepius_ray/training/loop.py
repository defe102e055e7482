"""The one training loop, for both phases and every ZeRO stage; runs on each worker.

Reads `base_model/` and `tokens/`, writes checkpoints and, at its end, the weights of `model/`.
"""

import math
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import deepspeed
import torch
import torch.distributed
from deepspeed import DeepSpeedEngine
from ray.actor import ActorHandle

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import TrainingError
from asclepius_ray.tokens.store import read_documents
from asclepius_ray.training.batches import FINGERPRINTS, PackedRows, collate, summed_loss
from asclepius_ray.training.checkpoints.adam import reset_moments
from asclepius_ray.training.checkpoints.reading import restore_newest
from asclepius_ray.training.checkpoints.writing import CheckpointWriter
from asclepius_ray.training.config import PhaseConfig, TrainingConfig
from asclepius_ray.training.control import Control, Wish
from asclepius_ray.training.deepspeed_config import deepspeed_config
from asclepius_ray.training.export import gather_weights, write_model
from asclepius_ray.training.failures import RegroupRequest
from asclepius_ray.training.loop_state import LoopState
from asclepius_ray.training.model import (
    check_documents_are_apart,
    load_model,
    load_sharded_model,
)
from asclepius_ray.training.order import document_order, micro_batches, step_rows, steps_per_epoch
from asclepius_ray.training.schedule import learning_rate


@dataclass(frozen=True)
class Job:
    """What the driver tells every worker."""

    root: Folder
    sequence_length: int
    training: TrainingConfig
    seed: int
    board: ActorHandle | None
    """The actor between workers and driver; None where there is no driver."""

    def tell(self, event: dict[str, Any]) -> None:
        """Tells the driver; rank 0 alone does."""
        if self.board is not None and torch.distributed.get_rank() == 0:
            self.board.push.remote(event)


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
    with job.root.child("base_model").as_local() as path:
        engine = start_engine(path, job.training)
    check_documents_are_apart(engine.module, engine.device)
    phases = load_phases(job)
    training = job.root.child("training")
    with CheckpointWriter(engine, training, job.training.keep_checkpoints) as checkpoints:
        state = restore_newest(engine, training, lambda text: job.tell({"event": "say", "text": text}))
        trainer = Trainer(job, engine, state or LoopState(), phases, checkpoints)
        if not trainer.train():
            return
    weights = gather_weights(engine.module)
    if trainer.rank == 0:
        with tempfile.TemporaryDirectory() as scratch:
            write_model(engine.module, weights, Path(scratch))
            job.root.child("model").upload(Path(scratch))
    torch.distributed.barrier()


def start_engine(path: Path, training: TrainingConfig) -> DeepSpeedEngine:
    """The model of a folder under DeepSpeed, on the process group that Ray Train has opened."""
    if not training.use_gpu:
        # DeepSpeed would compile its shared-memory collectives at first use; gloo does without.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    # Before zero.Init, which would otherwise count one worker only.
    deepspeed.init_distributed("nccl" if training.use_gpu else "gloo", verbose=False)
    config = deepspeed_config(training, torch.distributed.get_world_size())
    if training.zero_stage == 3:
        model = load_sharded_model(path, training.precision, config)
    else:
        model = load_model(path, training.precision)
    if training.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    model.train()
    engine, *_ = deepspeed.initialize(model=model, model_parameters=model.parameters(), config=config)
    return engine


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

    def __init__(
        self,
        job: Job,
        engine: DeepSpeedEngine,
        state: LoopState,
        phases: list[Phase],
        checkpoints: CheckpointWriter,
    ) -> None:
        self.job = job
        self.engine = engine
        self.state = state
        self.phases = phases
        self.checkpoints = checkpoints
        self.control = Control(job.board, engine.device, job.training.checkpoint_minutes * 60)
        self.rank = torch.distributed.get_rank()
        self.workers = torch.distributed.get_world_size()
        self.accumulation = engine.gradient_accumulation_steps()
        self.rows_read = ""
        """A hash of the documents that the last step has read, over all workers."""

    def train(self) -> bool:
        """All phases from the state on; False if the driver asked to stop (a checkpoint is saved then)."""
        total = sum(phase.total_steps for phase in self.phases)
        self.checkpoints.resume_from(self.state.total_steps)
        self.job.tell(
            {
                "event": "start",
                "workers": self.workers,
                "step": self.state.total_steps,
                "total_steps": total,
                "history": self.state.history,
            }
        )
        return all(self._train_phase(phase) for phase in self.phases[self.state.phase :])

    def _train_phase(self, phase: Phase) -> bool:
        if self.state.step == 0:
            # As in the paper, each phase is a training of its own that starts from the last one's weights.
            reset_moments(self.engine)
            self._record(phase, {"validation_loss": self.validation_loss(phase)})
        while self.state.step < phase.total_steps:
            self._train_step(phase)
            # After the last step comes the end of the phase, which is saved below.
            if self.state.step < phase.total_steps and not self._between_steps(self._is_save_due()):
                return False
        loss = self.validation_loss(phase)
        self._record(phase, {"validation_loss": loss})
        self.state.note_validation(loss)
        self.state.phase, self.state.step = phase.index + 1, 0
        return self._between_steps(save_due=True)

    def _is_save_due(self) -> bool:
        every = self.job.training.checkpoint_steps
        return bool(every) and self.state.total_steps % every == 0

    def _between_steps(self, save_due: bool) -> bool:
        """Saves if it is time to, and does what all workers have agreed on; False to stop."""
        self.checkpoints.check()
        for saved in self.checkpoints.take_saved():
            self.control.note_saved(saved.seconds)
            self.job.tell({"event": "checkpoint", **asdict(saved)})
        wish = self.control.decide()
        if wish in (Wish.STOP, Wish.LEAVE):
            self.checkpoints.save_and_wait(self.state)
        elif save_due or wish is Wish.SAVE:
            self.checkpoints.save(self.state)
        if wish is Wish.LEAVE:
            raise RegroupRequest(f"the workers are started anew from step {self.state.total_steps}")
        return wish is not Wish.STOP

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
            "rows": self.rows_read,
            "seconds": round(time.monotonic() - started, 4),
            "checkpoint_blocked_seconds": round(self.checkpoints.take_blocked_seconds(), 4),
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
        summed = torch.zeros((), dtype=torch.float64, device=self.engine.device)
        for number, share in enumerate(shares):
            loss = summed_loss(self.engine, collate(packed, share).to(self.engine.device))
            summed += loss.detach()
            self.engine.backward(loss * (self.workers * self.accumulation / targets))
            if number == len(shares) - 1:
                own_rows = sum(packed.fingerprint(rows) for rows in shares) % FINGERPRINTS
                mean = self._sum_over_workers(summed, own_rows) / targets
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
        summed = torch.zeros((), dtype=torch.float64, device=self.engine.device)
        self.engine.eval()
        with torch.no_grad():
            for share in micro_batches(rows, count, self.workers, self.rank, micro_batch):
                summed += summed_loss(self.engine, collate(packed, share).to(self.engine.device))
        self.engine.train()
        mean = self._sum_over_workers(summed) / packed.loss_tokens(rows)
        self._require_finite(mean)
        return mean

    def _sum_over_workers(self, value: torch.Tensor, own_rows: int = 0) -> float:
        # What rank 0 wants travels with the sum, so that all ranks learn of it at the same step.
        others = torch.tensor([own_rows, *self.control.words()], dtype=torch.float64)
        summed = torch.cat([value[None], others.to(value.device)])
        torch.distributed.all_reduce(summed)
        total, rows, *words = summed.tolist()
        self.rows_read = f"{int(rows) % FINGERPRINTS:010x}"
        self.control.take(words)
        return float(total)

    def _require_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss} after {self.state.total_steps} steps; lower the phase's learning_rate, "
                'or use precision = "fp32"'
            )

    def _record(self, phase: Phase, values: dict[str, Any]) -> None:
        line = {"phase": phase.config.kind, "step": self.state.total_steps, **values}
        self.state.history.append(line)
        self.job.tell({"event": "metrics", "line": line})
