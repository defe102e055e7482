"""The section `[training]`."""

import os
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, model_validator

from asclepius_ray.config import (
    CountRange,
    ModelName,
    Operational,
    Section,
    count_range,
    is_place,
    shown_name,
)
from asclepius_ray.training.deepspeed_table import check_table
from asclepius_ray.training.order import accumulation_steps

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


class LoraConfig(Section):
    """Low-rank adapters: `[training.lora]`; the base model's own weights stay as they are."""

    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=32.0, gt=0)
    """What the adapter adds is scaled by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of an adapter's inputs that is left out in training."""
    target_modules: tuple[str, ...] = ()
    """Names of the layers that get an adapter ("q_proj", "v_proj"); [] = all linear ones but the head."""


class TrainingConfig(Section):
    """What is trained, how and on how many workers."""

    base_model: Annotated[str, ModelName(), Field(min_length=1)] = TINY
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
    workers: Annotated[CountRange, Operational(), count_range("workers")] = CountRange(2, 2)
    """Processes that train, a GPU or CPU each: a number, or [fewest, most] to go on with what is there.

    Neither the global batch nor the order of the rows depends on it; it may change at any restart."""
    use_gpu: Annotated[bool, Operational()] = False
    zero_stage: Annotated[Literal[0, 1, 2, 3], Operational()] = 2
    """DeepSpeed's ZeRO stage: 0 none, 1 optimizer sharded, 2 gradients too, 3 weights too."""
    optimizer_offload: Annotated[bool, Operational()] = False
    """Keeps the optimizer's state in the host's memory and takes its steps on the CPU (ZeRO 1 to 3)."""
    parameter_offload: Annotated[bool, Operational()] = False
    """Keeps the weights in the host's memory too, each on the GPU only while it is needed (ZeRO 3)."""
    attention: Annotated[Literal["sdpa", "varlen", "flash_attention_2"], Operational()] = "varlen"
    """How the documents of a row are kept apart. "varlen" never touches two of them at once: by torch's own
    kernel on GPUs in bf16 (from Ampere on), one after the other elsewhere. "flash_attention_2" is the package
    flash-attn, for the same GPUs. "sdpa" takes a mask of all positions and is for the few models whose
    attention has more to it."""
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
    validation_steps: int = Field(default=0, ge=0)
    """Held-out rows are read before and after a phase, and after every so many of its steps; 0: no more."""
    early_stopping_patience: int = Field(default=0, ge=0)
    """A phase ends after so many validations in a row without an improvement; 0: it never ends early.

    What follows the phase then goes on with the weights of its best validation."""
    early_stopping_min_delta: float = Field(default=0.0, ge=0)
    """By how much the validation loss must fall to count as an improvement."""
    cpu_threads: Annotated[int, Operational(), Field(ge=0)] = 0
    """Threads of a worker that trains on the CPU; 0: its share of the machine's cores.

    Another number may change the last bits of a sum."""
    trackers: Annotated[tuple[Literal["tensorboard", "wandb"], ...], Operational()] = ()
    """Where the figures go besides `training/metrics.jsonl` and Prometheus."""
    export_shard_gb: Annotated[float, Field(gt=0), Operational()] = 5.0
    """Largest file of the exported model; the workers write a file each at the same time."""
    lora: LoraConfig | None = None
    """Absent: all weights are trained."""
    deepspeed: dict[str, Any] = Field(default={})
    """Laid over DeepSpeed's configuration; what other settings decide cannot be set here."""
    _base_model_folder: str = PrivateAttr(default="")

    @model_validator(mode="after")
    def _find_base_model(self) -> "TrainingConfig":
        # Once, where the run file is read: a worker has another working directory, and maybe another home.
        path = os.path.expanduser(self.base_model)  # noqa: PTH111 - leaves the home of nobody as it is
        if self.base_model != TINY and "://" not in path and os.path.isdir(path):  # noqa: PTH112
            self._base_model_folder = os.path.abspath(path)  # noqa: PTH100
        return self

    @property
    def base_model_folder(self) -> str:
        """The absolute path of `base_model`, if it was a folder where the run file was read; else "".

        No fingerprint holds it: the same settings are the same from any working directory.
        """
        return self._base_model_folder

    @property
    def base_model_is_place(self) -> bool:
        """Whether `base_model` is a folder or an address, which others do not have."""
        return bool(self._base_model_folder) or is_place(self.base_model)

    @property
    def shown_base_model(self) -> str:
        """`base_model` as others may see it: of a place the last part alone."""
        return shown_name(self._base_model_folder or self.base_model)

    @model_validator(mode="after")
    def _fits_together(self) -> "TrainingConfig":
        check_table(self.deepspeed)
        if self.optimizer_offload and self.zero_stage == 0:
            raise ValueError("optimizer_offload needs zero_stage 1, 2 or 3: without ZeRO nothing is moved")
        if self.parameter_offload and self.zero_stage != 3:
            raise ValueError(
                f"parameter_offload needs zero_stage 3, not {self.zero_stage}: only there are weights cut up"
            )
        given = self.deepspeed.get("zero_optimization", {})
        for key, name in (("offload_optimizer", "optimizer_offload"), ("offload_param", "parameter_offload")):
            if key in given and not getattr(self, name):
                raise ValueError(f"deepspeed.zero_optimization.{key} needs {name} = true")
        if self.attention == "flash_attention_2" and not (self.use_gpu and self.precision == "bf16"):
            raise ValueError(
                'attention = "flash_attention_2" is for GPUs in 16 bits; use "varlen", or use_gpu = true '
                'with precision = "bf16"'
            )
        # DeepSpeed adds them up in 32 bits from ZeRO 1 on alone.
        passes = accumulation_steps(self.global_batch, self.workers.fewest, self.micro_batch)
        if self.zero_stage == 0 and self.precision == "bf16" and passes > 1:
            raise ValueError(
                f"zero_stage 0 would add up the gradients of {passes} micro-batches in 16 bits, and lose the "
                "small ones: set zero_stage = 1, or a micro_batch with which one is enough"
            )
        return self

    @model_validator(mode="after")
    def _no_setting_does_nothing(self) -> "TrainingConfig":
        if self.early_stopping_patience and not self.validation_steps:
            raise ValueError(
                f"early_stopping_patience is {self.early_stopping_patience}, but no validation takes place "
                "within a phase: set validation_steps"
            )
        if self.early_stopping_min_delta and not self.early_stopping_patience:
            raise ValueError("early_stopping_min_delta does nothing without early_stopping_patience")
        if len(set(self.trackers)) < len(self.trackers):
            raise ValueError("trackers names one of them twice")
        return self

    @model_validator(mode="after")
    def _split_is_of_a_dataset(self) -> "TrainingConfig":
        if not self.dataset and self.validation_share != type(self).model_fields["validation_share"].default:
            raise ValueError(
                "validation_share is for training.dataset; what the synthesis holds out is set by "
                "synthesis.validation_share"
            )
        return self
