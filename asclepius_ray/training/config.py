"""The section `[training]`."""

from typing import Annotated, Literal, NamedTuple

from pydantic import BeforeValidator, Field, model_validator

from asclepius_ray.config import Operational, Section

TINY = "tiny"


class PhaseConfig(Section):
    """One pass over one kind of rows: `[[training.phases]]`."""

    kind: Literal["notes", "instructions"]
    """"notes": language modelling on the notes. "instructions": loss on the answer alone."""
    epochs: int = Field(ge=1)
    learning_rate: float = Field(default=2e-5, gt=0)
    warmup_ratio: float = Field(default=0.03, ge=0, lt=1)
    """Share of the phase's steps over which the rate rises; then it falls along a cosine to 0."""


class TinyConfig(Section):
    """The model that is made from scratch for `base_model = "tiny"`."""

    vocabulary_size: int = Field(default=2048, ge=300)
    hidden_size: int = Field(default=128, ge=16)
    layers: int = Field(default=4, ge=1)
    heads: int = Field(default=4, ge=1)

    @model_validator(mode="after")
    def _heads_divide(self) -> "TinyConfig":
        if self.hidden_size % (2 * self.heads):
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of 2 x heads ({self.heads})")
        return self


class WorkerRange(NamedTuple):
    """With how many workers a training may run; it takes as many as it can get."""

    fewest: int
    most: int


def _parse_workers(value: object) -> object:
    """In a run file: `4`, or `[2, 8]`."""
    ends = [value, value] if isinstance(value, int) else value
    match ends:
        case [int(fewest), int(most)] if 1 <= fewest <= most and bool not in (type(fewest), type(most)):
            return ends
    raise ValueError("it takes a number of workers, or [fewest, most] of them, from 1 on")


class TrainingConfig(Section):
    """What is trained, how and on how many workers."""

    base_model: str = Field(default=TINY, min_length=1)
    """"tiny" (made from scratch, tokenizer included), or a Hugging Face id, folder or URI."""
    tiny: TinyConfig = TinyConfig()
    phases: Annotated[tuple[PhaseConfig, ...], Field(min_length=1)] = (
        PhaseConfig(kind="notes", epochs=1),
        PhaseConfig(kind="instructions", epochs=3),
    )
    """The paper's: one epoch over the notes, three over the instructions."""
    workers: Annotated[WorkerRange, Operational(), BeforeValidator(_parse_workers)] = WorkerRange(2, 2)
    """Processes that train, a GPU or CPU each: a number, or [fewest, most] to go on with what is there.

    Neither the global batch nor the order of the rows depends on it; it may change at any restart."""
    use_gpu: Annotated[bool, Operational()] = False
    zero_stage: Annotated[Literal[0, 2, 3], Operational()] = 2
    """DeepSpeed's ZeRO stage: 0 none, 2 optimizer and gradients sharded, 3 weights too."""
    precision: Literal["fp32", "bf16"] = "fp32"
    global_batch: int = Field(default=128, ge=1)
    """Rows of one optimizer step over all workers; the paper's 128."""
    micro_batch: Annotated[int, Operational(), Field(ge=1)] = 2
    """Rows of one forward pass on one worker."""
    weight_decay: float = Field(default=0.0, ge=0)
    max_gradient_norm: float = Field(default=1.0, gt=0)
    gradient_checkpointing: Annotated[bool, Operational()] = False
    checkpoint_steps: Annotated[int, Operational(), Field(ge=0)] = 100
    """A checkpoint after every so many optimizer steps (0: none of these), and at the end of each phase."""
    checkpoint_minutes: Annotated[float, Operational(), Field(ge=0)] = 0.0
    """A checkpoint whenever the last one of these is so many minutes old; 0: none of these."""
    keep_checkpoints: Annotated[int, Operational(), Field(ge=1)] = 2
    """So many of the newest are kept, and the one with the phase's lowest validation loss."""
    max_failures: Annotated[int, Operational(), Field(ge=0)] = 3
    """How often in a row workers may be lost, with no checkpoint finished in between, before the run ends."""
