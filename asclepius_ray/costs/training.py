"""A run and its rows → tokens, operations, GPU hours and money of the training. Pure.

    tokens      the sum over the phases of epochs x rows x tokens of a row
    operations  for every token six a trained weight and four a frozen one (Kaplan et al. 2020,
                arXiv 2001.08361, section 2.1), and two more a weight where gradient checkpointing computes
                the forward pass again
    GPU hours   tokens x operations / (peak of a GPU x its utilisation) / 3600

The table of the tokens' vectors is looked up and not multiplied. Left out are attention (one operation in
seventy of a 7B model's at documents of 700 tokens), padding (at most 2 % of a row), checkpoints and starting:
the utilisation is to be taken as much lower.
"""

from dataclasses import dataclass

from asclepius_ray.chat.prices import CHARACTERS_PER_TOKEN
from asclepius_ray.costs.gpus import GpuPlan
from asclepius_ray.costs.sizes import KeptRows
from asclepius_ray.doctor.memory import ModelShape
from asclepius_ray.prompts.rendering import render_instruction
from asclepius_ray.run import Run

SECONDS_PER_HOUR = 3600
FORWARD, TRAINED, FROZEN = 2, 6, 4
"""Operations a weight and token."""


@dataclass(frozen=True)
class TrainingCost:
    """What the whole training takes."""

    tokens: float
    operations_per_token: int
    gpus: int
    gpu_hours: float
    usd: float

    @property
    def hours(self) -> float:
        return self.gpu_hours / self.gpus


def training_cost(run: Run, shape: ModelShape, rows: KeptRows, gpu: GpuPlan) -> TrainingCost:
    """All phases to their last epoch, on the most workers that the run may have."""
    tokens = training_tokens(run, rows)
    operations = operations_per_token(shape, run.training.gradient_checkpointing)
    gpu_seconds = tokens * operations / (gpu.peak_flops * gpu.utilisation)
    gpu_hours = gpu_seconds / SECONDS_PER_HOUR
    return TrainingCost(
        tokens, operations, run.training.workers.most, gpu_hours, gpu_hours * gpu.usd_per_hour
    )


def training_tokens(run: Run, rows: KeptRows) -> float:
    """Tokens of all phases and epochs over the run's own dataset.

    An example that is too long loses sentences of its note.
    """
    training = run.training
    frame = len(render_instruction("", ""))
    example = frame + rows.note_characters + rows.question_characters + rows.answer_characters
    tokens_of_row = {
        "notes": rows.note_characters / CHARACTERS_PER_TOKEN,
        "instructions": min(run.tokens.sequence_length, example / CHARACTERS_PER_TOKEN),
    }
    epochs = sum(phase.epochs * tokens_of_row[phase.kind] for phase in training.phases)
    return rows.num_rows * (1 - run.synthesis.validation_share) * epochs


def operations_per_token(shape: ModelShape, recomputes: bool) -> int:
    """Multiplications and additions of one token's way forwards and back, with what is computed again."""
    multiplied = shape.parameters - shape.vocabulary_size * shape.hidden_size
    trained = min(shape.trainable_parameters, multiplied)
    again = FORWARD * multiplied if recomputes else 0
    return TRAINED * trained + FROZEN * (multiplied - trained) + again
