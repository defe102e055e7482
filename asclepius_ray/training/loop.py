"""The one training loop, for both phases and every ZeRO stage; runs on each worker.

Reads `base_model/` and `tokens/`, writes checkpoints and, at its end, the weights of `model/`.
"""

import math
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.distributed
from deepspeed import DeepSpeedEngine
from ray.actor import ActorHandle

from asclepius_ray.artifacts import Folder, read_manifest
from asclepius_ray.errors import TrainingError
from asclepius_ray.node_cache import fetch_to_node, forget_on_node
from asclepius_ray.training.batch_loader import BatchLoader
from asclepius_ray.training.batches import FINGERPRINTS, PackedRows, summed_loss
from asclepius_ray.training.checkpoints.adam import reset_moments
from asclepius_ray.training.checkpoints.reading import restore_newest, restore_weights
from asclepius_ray.training.checkpoints.writing import CheckpointWriter
from asclepius_ray.training.config import TrainingConfig
from asclepius_ray.training.control import Control, Wish
from asclepius_ray.training.engine import start_engine
from asclepius_ray.training.engine_tuning import gradient_norm
from asclepius_ray.training.export import export_model
from asclepius_ray.training.failures import RegroupRequest
from asclepius_ray.training.loop_state import LoopState, require_same_store
from asclepius_ray.training.meters import StepMeter, StepTimes, padded_positions
from asclepius_ray.training.model import check_documents_are_apart, fetch_base_model
from asclepius_ray.training.order import micro_batches
from asclepius_ray.training.phases import Phase, load_phases
from asclepius_ray.training.recording import Recording
from asclepius_ray.training.schedule import learning_rate
from asclepius_ray.training.validation import Patience, is_validation_due, perplexity


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


def run(job: Job) -> None:
    """Trains from the newest checkpoint to the end and exports the model."""
    engine = start_engine(fetch_base_model(job.root, job.training), job.training, job.seed)
    check_documents_are_apart(engine.module, engine.device)
    tokens, training = job.root.child("tokens"), job.root.child("training")
    manifest = read_manifest(tokens)
    with CheckpointWriter(engine, training, job.training.keep_checkpoints) as checkpoints:
        state = restore_newest(engine, training, lambda text: job.tell({"event": "say", "text": text}))
        if state is None:
            state = LoopState(store_sha256=manifest.identity)
        require_same_store(state, manifest.identity)
        store = fetch_to_node(tokens, manifest.identity, manifest.files)
        phases = load_phases(store, job.sequence_length, job.training, job.seed)
        if not Trainer(job, engine, state, phases, checkpoints).train():
            return
        # The export's first collective must not wait for an upload.
        checkpoints.settle()
    forget_on_node(tokens, manifest.identity)
    export_model(engine.module, job.root.child("model"), job.training)


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
        self.loader = BatchLoader(engine.device)
        self.meter = StepMeter(engine, job.training.precision, self.workers)
        self.rows_read = ""
        """A hash of the documents that the last step has read, over all workers."""

    def train(self) -> bool:
        """All phases from the state on; False if the driver asked to stop (a checkpoint is saved then)."""
        total = sum(phase.total_steps for phase in self.phases)
        self.checkpoints.resume_from(self.state.total_steps)
        start = {"workers": self.workers, "step": self.state.total_steps, "total_steps": total}
        self.job.tell({"event": "start", **start})
        training = self.job.root.child("training")
        with Recording(training, self.rank, self.state.metric_bytes, self.job.tell) as self.recording:
            return all(self._train_phase(phase) for phase in self.phases[self.state.phase :])

    def _train_phase(self, phase: Phase) -> bool:
        training = self.job.training
        if self.state.step == 0:
            # As in the paper, each phase is a training of its own that starts from the last one's weights.
            reset_moments(self.engine)
            self._validate(phase)
            self.state.patience = Patience()
        while self.state.step < phase.total_steps:
            self._train_step(phase)
            if is_validation_due(self.state.step, phase.total_steps, training.validation_steps):
                self.state.note_validation(self._validate(phase), training.early_stopping_min_delta)
                if self.state.patience.is_exhausted(training.early_stopping_patience):
                    break
            # After the last step comes the end of the phase, which is saved below.
            if self.state.step < phase.total_steps and not self._between_steps(self._is_save_due()):
                return False
        else:
            self.state.note_validation(self._validate(phase), training.early_stopping_min_delta)
        self._go_back_to_best(phase)
        self.state.phase, self.state.step = phase.index + 1, 0
        return self._between_steps(save_due=True)

    def _is_save_due(self) -> bool:
        every, step = self.job.training.checkpoint_steps, self.state.total_steps
        return self.state.best_step_of_phase == step or (bool(every) and step % every == 0)

    def _between_steps(self, save_due: bool) -> bool:
        """Saves if it is time to, and does what all workers have agreed on; False to stop."""
        self.checkpoints.check()
        for saved in self.checkpoints.take_saved():
            self.control.note_saved(saved.seconds)
            self.job.tell({"event": "checkpoint", **asdict(saved)})
        wish = self.control.decide()
        if save_due or wish is not Wish.GO_ON:
            self.recording.sync()
        if wish in (Wish.STOP, Wish.LEAVE):
            self.checkpoints.save_and_wait(self.state)
        elif save_due or wish is Wish.SAVE:
            self.checkpoints.save(self.state)
        if wish is Wish.LEAVE:
            raise RegroupRequest(f"the workers are started anew from step {self.state.total_steps}")
        return wish is not Wish.STOP

    def _go_back_to_best(self, phase: Phase) -> None:
        """With early stopping, gives the model the weights of the phase's best validation."""
        best = self.state.best_step_of_phase
        if not self.job.training.early_stopping_patience or best in (None, self.state.total_steps):
            return
        self.checkpoints.settle()
        restore_weights(self.engine, self.job.root.child("training"), best)
        self.job.tell({"event": "say", "text": f"the weights of step {best} were the best: they are taken"})
        self._validate(phase)

    def _train_step(self, phase: Phase) -> None:
        started = time.monotonic()
        step = self.state.step
        packed, rows = phase.batch(step)
        rate = learning_rate(step, phase.total_steps, phase.config.learning_rate, phase.config.warmup_ratio)
        following = phase.batch(step + 1) if step + 1 < phase.total_steps else None
        # Dropout, where a model has any, is a function of the step too: a resumed run draws the same.
        torch.manual_seed(hash((self.job.seed, phase.index, step, self.rank)) % 2**63)
        loss = self.optimizer_step(packed, rows, rate, following)
        self.state.step += 1
        self.state.total_steps += 1
        norm = gradient_norm(self.engine)
        waited, blocked = self.loader.take_waited_seconds(), self.checkpoints.take_blocked_seconds()
        times = StepTimes(time.monotonic() - started, waited, blocked)
        positions = padded_positions(packed, [self._shares(rows, rank) for rank in range(self.workers)])
        figures = self.meter.measure(packed, rows, positions, times)
        values = {"loss": loss, "learning_rate": rate, "gradient_norm": norm, "rows": self.rows_read}
        self._record(phase, {**values, **figures})

    def _shares(self, rows: list[int], rank: int) -> list[list[int]]:
        """A rank's micro-batches of an optimizer step."""
        return micro_batches(rows, self.accumulation, self.workers, rank, self.job.training.micro_batch)

    def optimizer_step(
        self,
        packed: PackedRows,
        rows: list[int],
        rate: float,
        following: tuple[PackedRows, list[int]] | None = None,
    ) -> float:
        """One step on these rows; returns the mean loss per target over all workers.

        DeepSpeed divides by accumulation steps and by workers; undoing both and dividing by the
        targets of the whole batch makes the gradient the same for every split of the same rows.
        `following` are the next step's rows, which are put together meanwhile.
        """
        targets, skipped = packed.loss_tokens(rows), self.engine.skipped_steps
        for group in self.engine.optimizer.param_groups:
            group["lr"] = rate
        shares = self._shares(rows, self.rank)
        ahead = following and (following[0], self._shares(following[1], self.rank))
        summed = torch.zeros((), dtype=torch.float64, device=self.engine.device)
        for number, batch in enumerate(self.loader.load(packed, shares, ahead)):
            loss = summed_loss(self.engine, batch)
            summed += loss.detach()
            self.engine.backward(loss * (self.workers * self.accumulation / targets))
            if number == len(shares) - 1:
                own_rows = sum(packed.fingerprint(rows) for rows in shares) % FINGERPRINTS
                mean = self._sum_over_workers(summed, own_rows) / targets
                self._require_finite("loss", mean)
            self.engine.step()
        # DeepSpeed skips such a step in silence, or takes it. The norm is the same on all workers, so each of
        # them ends here. On a GPU this waits until the step is done.
        norm = math.inf if self.engine.skipped_steps > skipped else gradient_norm(self.engine)
        if norm is not None:
            self._require_finite("norm of the gradient", norm)
        return mean

    def _validate(self, phase: Phase) -> float | None:
        """Reads the held-out rows and records their loss."""
        started = time.monotonic()
        loss = self.validation_loss(phase)
        seconds = round(time.monotonic() - started, 4)
        self._record(phase, {"validation_loss": loss, "perplexity": perplexity(loss), "seconds": seconds})
        return loss

    def validation_loss(self, phase: Phase) -> float | None:
        """Mean loss per target of the held-out rows; None if there are none."""
        packed = phase.validation
        rows = list(range(len(packed)))
        if not rows:
            return None
        micro_batch = self.job.training.micro_batch
        count = math.ceil(len(rows) / (self.workers * micro_batch))
        shares = micro_batches(rows, count, self.workers, self.rank, micro_batch)
        summed = torch.zeros((), dtype=torch.float64, device=self.engine.device)
        self.engine.eval()
        with torch.no_grad():
            for batch in self.loader.load(packed, shares):
                summed += summed_loss(self.engine, batch)
        self.engine.train()
        # What the validation has waited for is no part of the next step.
        self.loader.take_waited_seconds()
        mean = self._sum_over_workers(summed) / packed.loss_tokens(rows)
        self._require_finite("loss", mean)
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

    def _require_finite(self, name: str, value: float) -> None:
        if not math.isfinite(value):
            self.job.tell({"event": "not_finite"})
            raise TrainingError(
                f"the {name} is {value} after {self.state.total_steps} steps; lower the phase's "
                'learning_rate, or use precision = "fp32"'
            )

    def _record(self, phase: Phase, values: dict[str, Any]) -> None:
        place = {"phase": phase.config.kind, "phase_number": phase.index + 1, "step": self.state.total_steps}
        self.recording.add({**place, **values})
        self.state.metric_bytes = self.recording.position
