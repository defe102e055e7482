"""The section `[training]`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

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


class TrainingConfig(Section):
    """What is trained, how and on how many workers."""

    base_model: str = Field(default=TINY, min_length=1)
    """"tiny" (made from scratch, tokenizer included), or a Hugging Face id, folder or URI."""
    dataset: Annotated[str, Operational()] = ""
    """A file, folder or URI with the columns patient_id, note, question, answer (Parquet, CSV, JSON lines);
    "" = what the synthesis has made in this root. What counts is the content."""
    validation_share: float = Field(default=0.05, gt=0, lt=1)
    """Share of the patients of `dataset` that is held out, where it has no `validation-*` files."""
    tiny: TinyConfig = TinyConfig()
    phases: Annotated[tuple[PhaseConfig, ...], Field(min_length=1)] = (
        PhaseConfig(kind="notes", epochs=1),
        PhaseConfig(kind="instructions", epochs=3),
    )
    """The paper's: one epoch over the notes, three over the instructions."""
    workers: Annotated[int, Operational(), Field(ge=1)] = 2
    """Processes that train, a GPU or CPU each; an interrupted training goes on with as many alone."""
    use_gpu: Annotated[bool, Operational()] = False
    zero_stage: Annotated[Literal[0, 2, 3], Operational()] = 2
    """DeepSpeed's ZeRO stage: 0 none, 2 optimizer and gradients sharded, 3 weights too.

    An interrupted training goes on with the same stage alone; to change it or `workers`: --redo train."""
    precision: Literal["fp32", "bf16"] = "fp32"
    global_batch: int = Field(default=128, ge=1)
    """Rows of one optimizer step over all workers; the paper's 128."""
    micro_batch: Annotated[int, Operational(), Field(ge=1)] = 2
    """Rows of one forward pass on one worker."""
    weight_decay: float = Field(default=0.0, ge=0)
    max_gradient_norm: float = Field(default=1.0, gt=0)
    gradient_checkpointing: Annotated[bool, Operational()] = False
    checkpoint_steps: Annotated[int, Operational(), Field(ge=1)] = 100
    """A checkpoint after every so many optimizer steps, and at the end of each phase."""
    keep_checkpoints: Annotated[int, Operational(), Field(ge=1)] = 2

    @model_validator(mode="after")
    def _split_is_of_a_dataset(self) -> "TrainingConfig":
        if not self.dataset and self.validation_share != type(self).model_fields["validation_share"].default:
            raise ValueError(
                "validation_share is for training.dataset; what the synthesis holds out is set by "
                "synthesis.validation_share"
            )
        return self
